//! A page of Bookinfo, as a reader sees it.

use anyhow::Result;
use mesh_tests::Pod;
use mesh_tests::http::Seen;
use std::time::{Duration, Instant};

/// What a reader sees of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) reviews: Reviews,
    /// Are there facts about the book?
    pub(super) details: bool,
    /// How long it took.
    pub(super) took: Duration,
}

/// The part of the page that reviews make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reviews {
    /// Version 1.
    Plain,
    /// Version 2.
    Black,
    /// Version 3.
    Red,
    /// Version 2 or 3, which had no answer from ratings.
    WithoutRatings,
    /// No answer from reviews.
    Missing,
}

impl Page {
    /// Fetches the page from within a pod.
    ///
    /// **Errors**: nothing came.
    pub(super) fn fetch(from: &Pod, url: &str, header: Option<&str>) -> Result<Self> {
        let mut arguments = vec!["--max-time", "15"];
        arguments.extend(header.iter().flat_map(|header| ["--header", *header]));
        let begun = Instant::now();
        let seen = from.ask(url, &arguments)?;
        Ok(Self::read(&seen, begun.elapsed()))
    }

    /// What is on a page.
    pub(super) fn read(seen: &Seen, took: Duration) -> Self {
        let page = &seen.body;
        let reviews = if page.contains("Ratings service is currently unavailable") {
            Reviews::WithoutRatings
        } else if page.contains("stars black") {
            Reviews::Black
        } else if page.contains("stars red") {
            Reviews::Red
        } else if page.contains("<blockquote>") {
            Reviews::Plain
        } else {
            Reviews::Missing
        };
        Self { status: seen.status, reviews, details: page.contains("<dt>Author</dt>"), took }
    }

    /// A whole page with these reviews.
    pub(super) fn shows(&self, reviews: Reviews) -> bool {
        self.status == 200 && self.details && self.reviews == reviews
    }
}
