//! Documents become objects.
//!
//! In:  the bytes of one file: YAML, any number of documents, or JSON.
//! Out: objects of the kinds that are read, and an `Issue` for each that is refused; or one `Issue` that says
//!      why the file as a whole cannot be read.
//! Invariant: never panics and never takes more than a small multiple of the file's size: aliases, depth and
//! nodes have a budget.
//! Source: YAML 1.2.2, "document markers"; Kubernetes names (RFC 1123) and `v1.List`; `kubectl apply` for the
//! default namespace.

use crate::api::apps::{Maker, Plan};
use crate::api::meta::ObjectMeta;
use crate::api::{core, custom, discovery, istio, secret};
use crate::model::{Issue, Name, ObjectRef};
use crate::world::{CustomKind, Kind, Object};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::MessageFormatter as _;

#[cfg(test)]
mod tests;

/// API groups whose objects mean something to a mesh: an object of a kind that is not read is refused aloud.
const CLAIMED_GROUPS: [&str; 5] = [
    "security.istio.io",
    "networking.istio.io",
    "gateway.networking.k8s.io",
    "projectcalico.org",
    "policy.networking.k8s.io",
];
const DEFAULT_NAMESPACE: &str = "default";
const FILE: &str = "File";

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Objects of the kinds that are read, in the file's order.
    pub(super) objects: Vec<Object>,
    /// What is refused.
    pub(super) issues: Vec<Issue>,
    /// What controllers would make something of, where somebody wants to know.
    pub(super) plans: Option<Vec<Plan>>,
}

/// What tells an object's kind.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    metadata: Option<HeadMeta>,
}

#[derive(Default, Deserialize)]
struct HeadMeta {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Option<Vec<Value>>,
}

/// Why a document cannot be read.
struct Refusal {
    /// The line within the document, from 1, if known.
    line: Option<usize>,
    problem: String,
}

impl Refusal {
    fn new(problem: impl Into<String>) -> Self {
        Self { line: None, problem: problem.into() }
    }
}

/// The issue of a file, or a directory, as a whole.
pub(super) fn file_issue(path: &str, line: Option<usize>, problem: &str, cure: &str) -> Issue {
    let field = line.map_or_else(String::new, |line| format!("line {line}"));
    Issue::new(
        &ObjectRef::new(FILE, Name::new("", path)),
        field,
        format!("{problem}; what was read before stays in force"),
        cure,
    )
}

/// What a text holds: the objects that are read, and what is refused. Never panics, whatever the bytes.
#[must_use]
pub fn parse_documents(bytes: &[u8]) -> (Vec<Object>, Vec<Issue>) {
    match parse("input", bytes, false) {
        Ok(parsed) => (parsed.objects, parsed.issues),
        Err(issue) => (Vec::new(), vec![*issue]),
    }
}

/// What the file at `path` holds, plans included if they are wanted.
///
/// **Errors**: the issue of a file that cannot be read as a whole.
pub(super) fn parse(path: &str, bytes: &[u8], wants_plans: bool) -> Result<Parsed, Box<Issue>> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes.get(..error.valid_up_to()).map(|valid| 1 + count_lines(valid));
        Box::new(file_issue(path, line, "the text is not UTF-8", "save the file as UTF-8"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parsed = Parsed { plans: wants_plans.then(Vec::new), ..Parsed::default() };
    for (lines_before, document) in documents(text) {
        read_document(document, &mut parsed).map_err(|refusal| {
            let first = || 1 + document.lines().position(holds_something).unwrap_or_default();
            let line = lines_before + refusal.line.unwrap_or_else(first);
            Box::new(file_issue(path, Some(line), &refusal.problem, "correct the file"))
        })?;
    }
    parsed.issues.sort();
    Ok(parsed)
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

/// The documents of a stream that hold anything, each with the number of lines before it.
///
/// A line that starts with `---` begins a document wherever it stands, even within a block of text.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut starts = vec![(0, 0)];
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let is_marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_marker && at > 0 {
            starts.push((number, at));
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).map(|&(_, start)| start).chain([text.len()]);
    let documents = starts.iter().zip(ends).filter_map(|(&(number, start), end)| Some((number, text.get(start..end)?)));
    documents.filter(|(_, document)| document.lines().any(holds_something)).collect()
}

/// Is a line more than blank, comment, directive or marker?
fn holds_something(line: &str) -> bool {
    let content = line.strip_prefix("---").or_else(|| line.strip_prefix("...")).unwrap_or(line).trim();
    !(content.is_empty() || content.starts_with('#') || line.starts_with('%'))
}

fn read_document(document: &str, parsed: &mut Parsed) -> Result<(), Refusal> {
    let head: Head = decode(document)?;
    match head.kind.as_deref() {
        Some(kind) if is_list(kind, head.api_version.as_deref()) => {
            let list: List = decode(document)?;
            let item_kind = kind.strip_suffix("List").unwrap_or_default();
            for (at, item) in list.items.unwrap_or_default().into_iter().enumerate() {
                read_item(item, item_kind, head.api_version.as_deref(), parsed)
                    .map_err(|refusal| Refusal::new(format!("items[{at}]: {}", refusal.problem)))?;
            }
            Ok(())
        }
        _ => read_object(&head, &Text(document), parsed),
    }
}

/// Is it a list of objects? Some real kinds end in `List` too, but none that is read.
fn is_list(kind: &str, api_version: Option<&str>) -> bool {
    let group = api_version.and_then(|version| version.rsplit_once('/')).map_or("", |(group, _)| group);
    (kind == "List" && api_version == Some("v1"))
        || kind.strip_suffix("List").is_some_and(|item| known(group, item).is_some() || maker(item).is_some())
}

/// Items of a list such as `PodList` may leave out what the list's own kind says.
fn read_item(mut item: Value, kind: &str, api_version: Option<&str>, parsed: &mut Parsed) -> Result<(), Refusal> {
    if let (Value::Object(fields), Some(api_version)) = (&mut item, api_version.filter(|_| !kind.is_empty())) {
        fields.entry("kind").or_insert_with(|| kind.into());
        fields.entry("apiVersion").or_insert_with(|| api_version.into());
    }
    let head = Head::deserialize(&item).map_err(|error| Refusal::new(error.to_string()))?;
    read_object(&head, &item, parsed)
}

/// One object, in a form that can be read as any type.
trait Source {
    fn decode<T: DeserializeOwned>(&self) -> Result<T, Refusal>;
}

/// A document.
struct Text<'a>(&'a str);

impl Source for Text<'_> {
    fn decode<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        decode(self.0)
    }
}

impl Source for Value {
    fn decode<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        T::deserialize(self).map_err(|error| Refusal::new(error.to_string()))
    }
}

fn decode<T: DeserializeOwned>(document: &str) -> Result<T, Refusal> {
    // What is JSON is read as JSON; YAML takes the rest, for a YAML document may start with a brace too.
    let is_json = document.trim_start().starts_with('{');
    if is_json && let Ok(value) = serde_json::from_str(document) {
        return Ok(value);
    }
    serde_saphyr::from_str_with_options(document, options()).map_err(|error| {
        let error = error.without_snippet();
        let line = error.location().and_then(|at| usize::try_from(at.line()).ok()).filter(|&line| line > 0);
        Refusal { line, problem: one_line(error) }
    })
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 8_000_000,
            max_nodes: 4_000_000,
            max_depth: 64,
            flow_nesting_limit: 64,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 100_000,
            max_documents: 1,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 8,
        },
        with_snippet: false,
    }
}

/// The error's text without its place, which is told apart, and short enough to read.
fn one_line(error: &serde_saphyr::Error) -> String {
    let text = serde_saphyr::UserMessageFormatter.format_message(error);
    printable(&text)
}

/// Text from a file, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// The kind that is read under this name in this API group.
fn known(group: &str, kind: &str) -> Option<Kind> {
    Some(match (group, kind) {
        ("", "Namespace") => Kind::Namespace,
        ("", "ServiceAccount") => Kind::ServiceAccount,
        ("", "Pod") => Kind::Pod,
        ("", "Service") => Kind::Service,
        ("discovery.k8s.io", "EndpointSlice") => Kind::EndpointSlice,
        ("", "Secret") => Kind::Secret,
        ("security.istio.io", "PeerAuthentication") => Kind::PeerAuthentication,
        _ => Kind::Custom(CustomKind::find(group, kind)?),
    })
}

/// The kind of this name whose controller makes pods.
fn maker(kind: &str) -> Option<Maker> {
    Maker::ALL.into_iter().find(|maker| maker.name() == kind)
}

/// What a controller would make of an object, if it is of a kind that has one.
fn plan(kind: &str, api_version: &str, source: &impl Source) -> Result<Option<Plan>, Refusal> {
    let mut plan = match maker(kind) {
        Some(maker) if maker.api_version() == api_version => Plan::Pods(maker, source.decode()?),
        _ if (kind, api_version) == ("Service", "v1") => Plan::Endpoints(source.decode()?),
        _ => return Ok(None),
    };
    let metadata = match &mut plan {
        Plan::Pods(_, plan) => &mut plan.metadata,
        Plan::Endpoints(exposure) => &mut exposure.metadata,
    };
    place(metadata, kind)?;
    Ok(Some(plan))
}

fn read_object(head: &Head, source: &impl Source, parsed: &mut Parsed) -> Result<(), Refusal> {
    let kind = head.kind.as_deref().filter(|kind| !kind.is_empty());
    let version = head.api_version.as_deref().filter(|version| !version.is_empty());
    let (Some(kind), Some(api_version)) = (kind, version) else {
        return Err(Refusal::new("an object needs `apiVersion` and `kind`"));
    };
    if kind == "List" {
        return Err(Refusal::new("a list within a list is not read"));
    }
    if let Some(plans) = &mut parsed.plans {
        match plan(kind, api_version, source) {
            Ok(plan) => plans.extend(plan),
            Err(refusal) => parsed.issues.push(no_plan(head, kind, &refusal)),
        }
    }
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let known = known(group, kind);
    match known {
        Some(kind) if is_version(kind, version) => {
            parsed.objects.push(object(kind, source)?);
        }
        _ if known.is_some() || is_claimed(group, kind) => parsed.issues.push(not_supported(head, kind, api_version)),
        _ => {}
    }
    Ok(())
}

fn is_version(kind: Kind, version: &str) -> bool {
    match kind {
        Kind::Custom(kind) => kind.versions().contains(&version),
        Kind::PeerAuthentication => matches!(version, "v1" | "v1beta1"),
        Kind::Namespace | Kind::ServiceAccount | Kind::Pod | Kind::Service | Kind::EndpointSlice | Kind::Secret => {
            version == "v1"
        }
    }
}

fn is_claimed(group: &str, kind: &str) -> bool {
    CLAIMED_GROUPS.contains(&group) || (group == "networking.k8s.io" && kind == "NetworkPolicy")
}

/// The object that a head is of.
fn named(head: &Head, kind: &str) -> ObjectRef {
    let metadata = head.metadata.as_ref();
    let name = metadata.and_then(|metadata| metadata.name.as_deref()).unwrap_or_default();
    let namespace = metadata.and_then(|metadata| metadata.namespace.as_deref()).unwrap_or_default();
    ObjectRef::new(kind, Name::new(namespace, name))
}

fn no_plan(head: &Head, kind: &str, refusal: &Refusal) -> Issue {
    let problem = format!("{}; no pod is made of it", refusal.problem);
    Issue::new(&named(head, kind), "", problem, "correct the object")
}

fn not_supported(head: &Head, kind: &str, api_version: &str) -> Issue {
    Issue::new(
        &named(head, kind),
        "kind",
        format!(
            "{kind} of {api_version} is not supported; nothing of it is enforced, traffic is treated as if it were absent"
        ),
        "remove it, or do not rely on it",
    )
}

fn object(kind: Kind, source: &impl Source) -> Result<Object, Refusal> {
    let mut object = match kind {
        Kind::Namespace => Object::Namespace(source.decode::<core::Namespace>()?),
        Kind::ServiceAccount => Object::ServiceAccount(source.decode::<core::ServiceAccount>()?),
        Kind::Pod => Object::Pod(source.decode::<core::Pod>()?),
        Kind::Service => Object::Service(source.decode::<core::Service>()?),
        Kind::EndpointSlice => Object::EndpointSlice(source.decode::<discovery::EndpointSlice>()?),
        Kind::Secret => Object::Secret(source.decode::<secret::Secret>()?),
        Kind::PeerAuthentication => Object::PeerAuthentication(source.decode::<istio::PeerAuthentication>()?),
        Kind::Custom(kind) => Object::Custom(kind, source.decode::<custom::Custom>()?),
    };
    let metadata = object.metadata_mut();
    if kind.is_cluster_scoped() {
        metadata.namespace = "".into();
        is_named(metadata, kind.name(), if kind == Kind::Namespace { is_label } else { is_subdomain })?;
    } else {
        place(metadata, kind.name())?;
    }
    Ok(object)
}

fn is_named(metadata: &ObjectMeta, kind: &str, is_name: fn(&str) -> bool) -> Result<(), Refusal> {
    if is_name(&metadata.name) {
        return Ok(());
    }
    Err(Refusal::new(format!("metadata.name: `{}` is no valid name of a {kind}", metadata.name)))
}

/// Gives an object the namespace that it is in, where it names none.
fn place(metadata: &mut ObjectMeta, kind: &str) -> Result<(), Refusal> {
    if metadata.namespace.is_empty() {
        metadata.namespace = DEFAULT_NAMESPACE.into();
    }
    is_named(metadata, kind, is_subdomain)?;
    if !is_label(&metadata.namespace) {
        return Err(Refusal::new(format!("metadata.namespace: `{}` is no valid name", metadata.namespace)));
    }
    Ok(())
}

/// Is it a label of RFC 1123?
fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

/// Is it a name of RFC 1123, as Kubernetes reads it: parts joined by dots?
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_part(text: &str) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(is_alphanumeric)
        && bytes.last().is_some_and(is_alphanumeric)
        && bytes.iter().all(|byte| is_alphanumeric(byte) || *byte == b'-')
}
