//! What headers say of the trace that a request is of.
//!
//! In:  the headers of a request.
//! Out: [`Extracted`]; the headers of the same request for the next one who reads them.
//! Invariant: both forms are written, and they never contradict each other.
//! Invariant: what is not exactly as specified is taken as not there.
//! Source: W3C Trace Context, sections 3.2 and 3.3; B3 propagation (`openzipkin/b3-propagation`).
//!
//! Where a request has both forms, W3C's decides which span is the parent: it is the standard, and what an application
//! copies without understanding it still names a span of this mesh, which exists, while the id that its B3 library
//! wrote may be that of a span which is exported nowhere. Whether the trace is sampled, an application may say in
//! either: if they are of one trace, one that asks for it is enough.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::{self, Write as _};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static B3: HeaderName = HeaderName::from_static("b3");
static B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
static B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
static B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
static B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
static B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// The flag of a `traceparent` that says that the trace is sampled.
const SAMPLED: u8 = 1;

/// The flag of a `traceparent` that says that the lower half of the trace's id is random.
const RANDOM: u8 = 2;

/// Tells one trace from another; never 0. Written in 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

/// Tells one span of a trace from another; never 0. Written in 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl TraceId {
    fn random() -> Self {
        Self(fastrand::u128(1..))
    }

    /// 32 digits, or 16 for the lower half, which B3 allows.
    fn parse_b3(text: &[u8]) -> Option<Self> {
        let digits = matches!(text.len(), 16 | 32).then_some(text)?;
        hex(&digits.to_ascii_lowercase()).filter(|&id| id != 0).map(Self)
    }
}

impl SpanId {
    pub(super) fn random() -> Self {
        Self(fastrand::u64(1..))
    }

    fn parse_b3(text: &[u8]) -> Option<Self> {
        Self::parse(&text.to_ascii_lowercase())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let id = (text.len() == 16).then(|| hex(text))??;
        u64::try_from(id).ok().filter(|&id| id != 0).map(Self)
    }
}

/// What the headers of a request say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extracted {
    /// The trace, and its span that sent the request.
    pub(super) parent: Option<(TraceId, SpanId)>,
    /// The parent of that span, which only B3 tells.
    grandparent: Option<SpanId>,
    /// Is it to be sampled? `None` if that is for the next one to decide.
    pub(super) sampled: Option<bool>,
    /// Must it be sampled, whatever is configured anywhere?
    debug: bool,
    /// Is the lower half of the trace's id known to be random?
    random: bool,
    /// Was it W3C's form that told the parent?
    w3c: bool,
    /// Did B3's form tell one?
    b3: bool,
    /// Was there a `b3`?
    single: bool,
}

/// The ids of one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) sampled: bool,
    random: bool,
}

/// Reads what `headers` say.
pub(super) fn extract(headers: &HeaderMap) -> Extracted {
    let b3 = one(headers, &B3).and_then(parse_b3_single).or_else(|| b3_multi(headers)).unwrap_or_default();
    let b3 = Extracted { b3: b3.parent.is_some(), single: headers.contains_key(&B3), ..b3 };
    let Some((parent, flags)) = one(headers, &TRACEPARENT).and_then(parse_traceparent) else { return b3 };
    let same_trace = b3.parent.is_some_and(|(trace, _)| trace == parent.0);
    let asked = same_trace && b3.sampled == Some(true);
    Extracted {
        parent: Some(parent),
        grandparent: None,
        sampled: Some(flags & SAMPLED != 0 || asked),
        debug: same_trace && b3.debug,
        random: flags & RANDOM != 0,
        w3c: true,
        b3: b3.b3,
        single: b3.single,
    }
}

/// The only value of a header; one that is there twice says nothing.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

fn parse_traceparent(text: &[u8]) -> Option<((TraceId, SpanId), u8)> {
    let (head, rest) = text.split_at_checked(55)?;
    let [v0, v1, b'-', ids @ .., b'-', f0, f1] = head else { return None };
    let version = hex(&[*v0, *v1])?;
    // Later versions may add fields; 255 is none.
    if version == 255 || (version == 0 && !rest.is_empty()) || !matches!(rest, [] | [b'-', ..]) {
        return None;
    }
    let (trace, span) = ids.split_at_checked(32)?;
    let trace = hex(trace).filter(|&id| id != 0).map(TraceId)?;
    let span = SpanId::parse(span.strip_prefix(b"-")?)?;
    Some(((trace, span), u8::try_from(hex(&[*f0, *f1])?).ok()?))
}

/// What a `b3` says, as in `0`, or `<trace>-<span>[-<state>[-<parent>]]`.
fn parse_b3_single(text: &[u8]) -> Option<Extracted> {
    let state = |text: &[u8]| match text {
        b"0" => Some((false, false)),
        b"1" => Some((true, false)),
        b"d" => Some((true, true)),
        _ => None,
    };
    if let Some((sampled, debug)) = state(text) {
        return Some(Extracted { sampled: Some(sampled), debug, ..Extracted::default() });
    }
    let mut parts = text.split(|&byte| byte == b'-');
    let parent = (TraceId::parse_b3(parts.next()?)?, SpanId::parse_b3(parts.next()?)?);
    let decision = parts.next().map(|part| state(part).ok_or(())).transpose().ok()?;
    let grandparent = parts.next().map(|part| SpanId::parse_b3(part).ok_or(())).transpose().ok()?;
    parts.next().is_none().then(|| Extracted {
        parent: Some(parent),
        grandparent,
        sampled: decision.map(|(sampled, _)| sampled),
        debug: decision.is_some_and(|(_, debug)| debug),
        ..Extracted::default()
    })
}

/// What the `x-b3-` headers say.
fn b3_multi(headers: &HeaderMap) -> Option<Extracted> {
    let parent = || {
        let trace = TraceId::parse_b3(one(headers, &B3_TRACE)?)?;
        Some((trace, SpanId::parse_b3(one(headers, &B3_SPAN)?)?))
    };
    let debug = one(headers, &B3_FLAGS) == Some(b"1");
    let sampled = match one(headers, &B3_SAMPLED) {
        _ if debug => Some(true),
        // The words are of early tracers, which B3 asks to bear with.
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        Some(_) | None => None,
    };
    let parent = parent();
    let grandparent = parent.and(one(headers, &B3_PARENT)).and_then(SpanId::parse_b3);
    Some(Extracted { parent, grandparent, sampled, debug, ..Extracted::default() })
}

impl Extracted {
    /// A span of the mesh in the trace of the request, or in a new one.
    pub(super) fn child(&self, sampled: bool) -> Ids {
        let (trace, random) = self.parent.map_or_else(|| (TraceId::random(), true), |(trace, _)| (trace, self.random));
        Ids { trace, span: SpanId::random(), parent: self.parent.map(|(_, span)| span), sampled, random }
    }

    /// Did both forms tell a parent?
    pub(super) fn has_both(&self) -> bool {
        self.w3c && self.b3
    }

    /// The span that sent the request; `None` if it is of no trace, or if both forms cannot say the same, because only
    /// B3 can leave a decision to the next one.
    pub(super) fn same(&self) -> Option<Ids> {
        let ((trace, span), sampled) = self.parent.zip(self.sampled)?;
        Some(Ids { trace, span, parent: self.grandparent, sampled, random: self.random })
    }
}

impl Ids {
    /// Writes both forms into `headers`, which say what was `extracted` of them or of others.
    pub(super) fn inject(&self, extracted: &Extracted, headers: &mut HeaderMap) {
        let forms = Forms::new(self);
        headers.insert(&TRACEPARENT, forms.traceparent());
        if !extracted.w3c {
            // It belongs to a `traceparent`, and there was none.
            headers.remove(&TRACESTATE);
        }
        headers.insert(&B3_TRACE, forms.trace());
        headers.insert(&B3_SPAN, forms.span());
        match self.parent {
            Some(_) => headers.insert(&B3_PARENT, forms.parent()),
            None => headers.remove(&B3_PARENT),
        };
        let sampled = HeaderValue::from_static(if self.sampled { "1" } else { "0" });
        let debug = extracted.debug && self.sampled;
        if debug {
            // B3: it implies the decision, which is then not sent.
            headers.insert(&B3_FLAGS, HeaderValue::from_static("1"));
            headers.remove(&B3_SAMPLED);
        } else {
            headers.insert(&B3_SAMPLED, sampled);
            headers.remove(&B3_FLAGS);
        }
        if extracted.single {
            headers.insert(&B3, forms.single(self, debug));
        }
    }
}

/// All ids in hexadecimal, written once and shared by the headers that hold parts of them.
struct Forms {
    text: Bytes,
    /// Where the trace's id begins for B3.
    trace: usize,
}

impl Forms {
    fn new(ids: &Ids) -> Self {
        let flags = if ids.sampled { SAMPLED } else { 0 } | if ids.random { RANDOM } else { 0 };
        let parent = ids.parent.map_or(0, |parent| parent.0);
        let mut text = BytesMut::with_capacity(71);
        write!(text, "00-{}-{}-{flags:02x}{parent:016x}", ids.trace, ids.span).expect("memory takes every byte");
        // An id of 64 bits stays one for those who know it as such.
        let trace = if ids.trace.0 >> 64 == 0 { 19 } else { 3 };
        Self { text: text.freeze(), trace }
    }

    fn part(&self, range: std::ops::Range<usize>) -> HeaderValue {
        value(self.text.slice(range))
    }

    fn traceparent(&self) -> HeaderValue {
        self.part(0..55)
    }

    fn trace(&self) -> HeaderValue {
        self.part(self.trace..35)
    }

    fn span(&self) -> HeaderValue {
        self.part(36..52)
    }

    fn parent(&self) -> HeaderValue {
        self.part(55..71)
    }

    fn single(&self, ids: &Ids, debug: bool) -> HeaderValue {
        let mut text = BytesMut::with_capacity(68);
        text.extend_from_slice(&self.text[self.trace..52]);
        text.extend_from_slice(match (debug, ids.sampled) {
            (true, _) => b"-d",
            (false, true) => b"-1",
            (false, false) => b"-0",
        });
        if ids.parent.is_some() {
            text.extend_from_slice(b"-");
            text.extend_from_slice(&self.text[55..71]);
        }
        value(text.freeze())
    }
}

fn value(text: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(text).expect("hexadecimal digits and dashes are valid in headers")
}

/// A number in lower-case hexadecimal digits and nothing else.
fn hex(text: &[u8]) -> Option<u128> {
    if text.len() > 32 {
        return None;
    }
    text.iter().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}
