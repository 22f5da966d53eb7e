//! Why a client's connection of HTTP was ended for what came on it.
//!
//! In:  what hyper says of a connection that it ended.
//! Out: a stable identifier, for metrics; none if the client is not at fault.
//! Source: RFC 9113, section 7, for the codes of HTTP/2; hyper and h2 for what is bounded.

use std::error::Error;

/// Frames that neither ask nor answer anything.
pub(crate) const CONTROL_FLOOD: &str = "control_flood";
/// Streams that never became a request, for their heads were too large or could not be understood.
pub(crate) const BAD_STREAM: &str = "bad_stream";

/// Why hyper ended a connection, if its client is at fault.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        if error.is_parse_too_large() {
            return Some("head_too_large");
        }
        if error.is_parse() {
            return Some("malformed");
        }
    }
    match error.downcast_ref::<h2::Error>() {
        Some(error) => error.reason().filter(|_| error.is_library()).map(code),
        None => error.source().and_then(reason),
    }
}

/// The code by which h2 told the client.
const fn code(reason: h2::Reason) -> &'static str {
    match reason {
        h2::Reason::PROTOCOL_ERROR => "protocol_error",
        h2::Reason::FLOW_CONTROL_ERROR => "flow_control_error",
        h2::Reason::SETTINGS_TIMEOUT => "settings_timeout",
        h2::Reason::STREAM_CLOSED => "stream_closed",
        h2::Reason::FRAME_SIZE_ERROR => "frame_size_error",
        h2::Reason::COMPRESSION_ERROR => "compression_error",
        // Resets before requests were looked at, headers without an end, DATA without data.
        h2::Reason::ENHANCE_YOUR_CALM => "enhance_your_calm",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_client_did_is_counted() {
        assert_eq!(reason(&std::io::Error::from(std::io::ErrorKind::ConnectionReset)), None);
        assert_eq!(reason(&h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM)), None, "not found by h2 itself");
    }
}
