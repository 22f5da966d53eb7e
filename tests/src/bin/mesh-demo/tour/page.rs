//! A page of Bookinfo, as a reader sees it.

use anyhow::{Context as _, Result};
use mesh_tests::Pod;
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
        let mut arguments = vec!["--silent", "--show-error", "--max-time", "15", "--write-out", "\n%{http_code}", url];
        arguments.extend(header.iter().flat_map(|header| ["--header", *header]));
        let begun = Instant::now();
        let answer = from.run("curl", arguments)?.success()?;
        Self::read(&answer, begun.elapsed())
    }

    /// What is on a page, behind which its status stands in a line of its own.
    pub(super) fn read(answer: &str, took: Duration) -> Result<Self> {
        let (page, status) = answer.rsplit_once('\n').context("no status behind the page")?;
        let status = status.parse().with_context(|| format!("{status} is no status"))?;
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
        Ok(Self { status, reviews, details: page.contains("<dt>Author</dt>"), took })
    }

    /// A whole page with these reviews.
    pub(super) fn shows(&self, reviews: Reviews) -> bool {
        self.status == 200 && self.details && self.reviews == reviews
    }
}
