//! The product page, as one HTML document without outside parts.
//!
//! In:  what details and reviews answered, or that they did not.
//! Out: HTML.
//! Invariant: every text that came over the network is escaped.

use serde_json::Value;
use std::fmt::Write as _;

const STYLE: &str = "
:root{--ink:#1d2433;--soft:#667085;--line:#e4e7ec;--paper:#fff;--ground:#f5f6f8;--accent:#3451b2}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9f0;--soft:#98a2b3;--line:#2b3242;--paper:#171c28;--ground:#0f131c;--accent:#8ea6ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.6 system-ui,sans-serif}
header{background:var(--paper);border-bottom:1px solid var(--line)}
header div,main,footer{max-width:60rem;margin:0 auto;padding:1rem 1.5rem}
header a{color:inherit;font-weight:650;text-decoration:none}
h1{font-size:2.2rem;line-height:1.2;margin:1.5rem 0 .5rem;letter-spacing:-.02em}
h2{font-size:1.1rem;margin:0 0 1rem}
.lead{color:var(--soft);max-width:42rem;margin:0 0 2rem}
.grid{display:grid;grid-template-columns:1fr 2fr;gap:1.5rem}
@media(max-width:44rem){.grid{grid-template-columns:1fr}}
section{background:var(--paper);border:1px solid var(--line);border-radius:.75rem;padding:1.5rem}
dl{display:grid;grid-template-columns:auto 1fr;gap:.35rem 1rem;margin:0}
dt{color:var(--soft)}dd{margin:0;text-align:right;overflow-wrap:anywhere}
blockquote{margin:0 0 1.25rem;padding:0 0 1.25rem;border-bottom:1px solid var(--line)}
blockquote:last-of-type{border:0;margin:0;padding-bottom:0}
blockquote p{margin:0 0 .4rem}cite{color:var(--soft);font-style:normal;font-size:.9rem}
.stars{letter-spacing:.15em;font-size:1.1rem}.black{color:var(--ink)}.red{color:#d92d20}
.missing{color:#b42318}footer{color:var(--soft);font-size:.85rem}a{color:var(--accent)}
";

/// The page at `/`.
pub(super) fn front() -> String {
    document(
        "<h1>Bookinfo</h1><p class=\"lead\">Four small services that call each other, to see what a mesh does.</p>\
         <section><a href=\"/productpage\">The product page</a></section>",
        "",
    )
}

/// The page at `/productpage`.
pub(super) fn product(pod: &str, details: Option<&Value>, reviews: Option<&Value>) -> String {
    let product = super::catalogue::product();
    let body = format!(
        "<h1>{}</h1><p class=\"lead\">{}</p><div class=\"grid\"><section><h2>Book details</h2>{}</section>\
         <section><h2>Book reviews</h2>{}</section></div>",
        text(&product["title"]),
        text(&product["descriptionHtml"]),
        details.map_or_else(|| missing("details"), facts),
        reviews.map_or_else(|| missing("reviews"), voices),
    );
    let served = match reviews {
        Some(reviews) => format!("Page by {}, reviews by {}.", escape(pod), text(&reviews["podname"])),
        None => format!("Page by {}.", escape(pod)),
    };
    document(&body, &served)
}

fn document(body: &str, footer: &str) -> String {
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Simple Bookstore App</title>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><style>{STYLE}</style></head>\
         <body><header><div><a href=\"/\">Bookinfo</a></div></header><main>{body}</main><footer>{footer}</footer></body></html>\n"
    )
}

fn missing(what: &str) -> String {
    format!("<p class=\"missing\">Sorry, product {what} are currently unavailable for this book.</p>")
}

fn facts(details: &Value) -> String {
    let rows = [
        ("Author", "author"),
        ("Year", "year"),
        ("Type", "type"),
        ("Pages", "pages"),
        ("Publisher", "publisher"),
        ("Language", "language"),
        ("ISBN-10", "ISBN-10"),
        ("ISBN-13", "ISBN-13"),
    ];
    let mut html = String::from("<dl>");
    for (label, field) in rows {
        // Writing to a String cannot fail.
        let _ = write!(html, "<dt>{label}</dt><dd>{}</dd>", text(&details[field]));
    }
    html + "</dl>"
}

fn voices(reviews: &Value) -> String {
    let mut html = String::new();
    for review in reviews["reviews"].as_array().into_iter().flatten() {
        let _ = write!(
            html,
            "<blockquote><p>{}</p>{}<cite>{}</cite></blockquote>",
            text(&review["text"]),
            stars(&review["rating"]),
            text(&review["reviewer"]),
        );
    }
    html
}

fn stars(rating: &Value) -> String {
    if let Some(error) = rating["error"].as_str() {
        return format!("<p class=\"missing\">{}</p>", escape(error));
    }
    let Some(count) = rating["stars"].as_u64() else { return String::new() };
    let full = usize::try_from(count).unwrap_or(0).min(5);
    let class = if rating["color"] == "red" { "red" } else { "black" };
    format!(
        "<p class=\"stars {class}\" title=\"{full} of 5\">{}{}</p>",
        "\u{2605}".repeat(full),
        "\u{2606}".repeat(5 - full)
    )
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escape(text),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => escape(&other.to_string()),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_neighbours_send_cannot_become_markup() {
        let reviews = json!({ "podname": "<b>", "reviews": [{ "reviewer": "\"x\"", "text": "<script>" }] });
        let page = product("pod", None, Some(&reviews));
        assert!(page.contains("&lt;script&gt;") && page.contains("&lt;b&gt;") && page.contains("&quot;x&quot;"));
        assert!(page.contains("product details are currently unavailable"));
    }

    #[test]
    fn stars_are_five_at_most() {
        assert_eq!(stars(&json!({ "stars": 9, "color": "red" })).matches('\u{2605}').count(), 5);
        assert!(stars(&json!({ "stars": 3, "color": "black" })).contains("stars black"));
        assert_eq!(stars(&Value::Null), "");
    }
}
