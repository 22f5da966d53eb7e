//! The one book on sale, in the JSON fields of the public Bookinfo API.
//!
//! Out: details, reviews and ratings as JSON values.
//! Invariant: plain functions of their arguments.

use serde_json::{Value, json};

const REVIEWS: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "Two pairs of twins, one town, and not a single person who asks the obvious question. I laughed on every page.",
    ),
    (
        "Reviewer2",
        "Short, quick and silly in the best way. Keep a note of who is who, or let it go and enjoy the mess.",
    ),
];

const STARS: [(&str, u8); 2] = [("Reviewer1", 5), ("Reviewer2", 4)];

/// The entry of the product list.
pub(super) fn product() -> Value {
    json!({
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": "Shakespeare's shortest play: twins parted at birth meet in one town, and everybody takes each for the other.",
    })
}

/// Facts about a book.
pub(super) fn details(id: u32) -> Value {
    json!({
        "id": id,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    })
}

/// Stars by reader.
pub(super) fn ratings(id: u32) -> Value {
    let stars: serde_json::Map<String, Value> =
        STARS.iter().map(|&(reader, stars)| (reader.to_owned(), stars.into())).collect();
    json!({ "id": id, "ratings": stars })
}

/// What readers say. `ratings` is the colour of stars and the answer of ratings, if there was one.
pub(super) fn reviews(id: u32, pod: &str, ratings: Option<(&str, Option<Value>)>) -> Value {
    let reviews: Vec<Value> = REVIEWS
        .iter()
        .map(|&(reader, text)| {
            let mut review = json!({ "reviewer": reader, "text": text });
            match &ratings {
                Some((color, Some(answer))) => {
                    let stars = answer["ratings"][reader].as_u64().unwrap_or(0);
                    review["rating"] = json!({ "stars": stars, "color": color });
                }
                Some((_, None)) => review["rating"] = json!({ "error": "Ratings service is currently unavailable" }),
                None => {}
            }
            review
        })
        .collect();
    json!({ "id": id.to_string(), "podname": pod, "clustername": "null", "reviews": reviews })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_come_from_ratings() {
        let with = reviews(0, "pod", Some(("red", Some(ratings(0)))));
        assert_eq!(with["reviews"][0]["rating"], json!({ "stars": 5, "color": "red" }));
        assert_eq!(with["reviews"][1]["rating"], json!({ "stars": 4, "color": "red" }));
        assert!(reviews(0, "pod", None)["reviews"][0].get("rating").is_none());
        assert!(reviews(0, "pod", Some(("red", None)))["reviews"][0]["rating"]["error"].is_string());
    }
}
