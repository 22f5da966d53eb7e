//! A network configuration list as text: what it says, with our entry, without it.
//!
//! In:  the bytes of a `.conflist`.
//! Out: [`List`]; changed text.
//! Invariant: what is not ours is kept byte for byte, unknown members, order and white space included.
//! Source: CNI 1.1.0, section 1, "Configuration format"; `NetworkConfFromBytes` of libcni 1.3.0 for what it accepts.

use super::entry::PLUGIN;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::ops::Range;

/// Versions of CNI that `mesh-cni` speaks, oldest first.
const SPOKEN: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// What is wrong with a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It cannot be decoded; perhaps it is just being written.
    #[error("it cannot be decoded: {0}")]
    Decode(String),
    /// It has no name that could be a directory's.
    #[error("its name {0:?} is no network name: a letter or digit, then letters, digits, _.-")]
    Name(String),
    /// Its version is one that `mesh-cni` does not speak.
    #[error("its cniVersion {0:?} is none of 0.3.1, 0.4.0, 1.0.0 and 1.1.0; set one of them")]
    Version(String),
    /// A member is not of the kind that the runtime expects.
    #[error("its {0}")]
    Member(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members<'a> {
    name: Option<Value>,
    cni_version: Option<Value>,
    cni_versions: Option<Value>,
    load_only_inlined_plugins: Option<Value>,
    #[serde(borrow)]
    plugins: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Plugin {
    #[serde(rename = "type")]
    kind: Option<Value>,
}

/// One list.
#[derive(Clone, Debug)]
pub(super) struct List<'a> {
    text: &'a str,
    /// The network's name.
    pub(super) name: String,
    /// The version that the runtime will tell our plugin.
    pub(super) version: &'static str,
    /// Does the runtime leave out what is in the network's directory?
    pub(super) inlined_only: bool,
    plugins: Vec<(Range<usize>, bool)>,
}

impl<'a> List<'a> {
    /// Reads a list.
    ///
    /// **Errors**: the runtime, or our plugin, could not use it.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ListError> {
        let text = str::from_utf8(bytes).map_err(|error| ListError::Decode(error.to_string()))?;
        let members: Members<'a> = decode(text)?;
        let name = match members.name {
            Some(Value::String(name)) if mesh_common::cni::is_container_id(&name) => name,
            Some(Value::String(name)) => return Err(ListError::Name(name)),
            _ => return Err(ListError::Name(String::new())),
        };
        let plugins = match members.plugins {
            None => Vec::new(),
            Some(raw) => {
                let each: Vec<&'a RawValue> =
                    decode(raw.get()).map_err(|_| ListError::Member("plugins are no list"))?;
                each.into_iter().map(|raw| plugin(text, raw)).collect::<Result<_, _>>()?
            }
        };
        Ok(Self {
            text,
            name,
            version: version(members.cni_version, members.cni_versions)?,
            inlined_only: flag(members.load_only_inlined_plugins)?,
            plugins,
        })
    }

    /// Our entry in it, if it is there once.
    pub(super) fn entry(&self) -> Option<Value> {
        let mut ours = self.plugins.iter().filter(|(_, ours)| *ours);
        let (range, _) = ours.next()?;
        if ours.next().is_some() { None } else { serde_json::from_str(&self.text[range.clone()]).ok() }
    }

    /// Is an entry of ours in it?
    pub(super) fn has_entry(&self) -> bool {
        self.plugins.iter().any(|(_, ours)| *ours)
    }

    /// The text with `entry` as the last plugin; `None` if there is no plugin that it could follow.
    pub(super) fn with(&self, entry: &Value) -> Option<String> {
        let text = self.without();
        let last = self.plugins.iter().rfind(|(_, ours)| !ours)?.0.clone();
        let cut: usize = self.cuts().filter(|cut| cut.end <= last.start).map(|cut| cut.len()).sum();
        let end = last.end - cut;
        // The new entry begins as its neighbour does: on the same line, or on one of its own.
        let before = &self.text[..last.start];
        let lead = &before[before.rfind(['[', ',']).map_or(last.start, |at| at + 1)..];
        let lead = if lead.trim().is_empty() { lead } else { "" };
        Some(format!("{},{lead}{entry}{}", &text[..end], &text[end..]))
    }

    /// The text without any entry of ours.
    pub(super) fn without(&self) -> String {
        let mut text = String::with_capacity(self.text.len());
        let mut at = 0;
        for cut in self.cuts() {
            text.push_str(&self.text[at..cut.start]);
            at = cut.end;
        }
        text.push_str(&self.text[at..]);
        text
    }

    /// What has to go for our entries to be gone: with each the comma before it, or, before the first plugin that stays,
    /// the one after it.
    fn cuts(&self) -> impl Iterator<Item = Range<usize>> {
        let first_kept = self.plugins.iter().position(|(_, ours)| !ours).unwrap_or(self.plugins.len());
        self.plugins.iter().enumerate().filter(|(_, (_, ours))| *ours).map(move |(index, (range, _))| {
            if index > first_kept {
                self.plugins[index - 1].0.end..range.end
            } else {
                let end = self.plugins.get(index + 1).map_or(range.end, |(next, _)| next.start);
                range.start..end
            }
        })
    }
}

fn decode<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ListError> {
    serde_json::from_str(text).map_err(|error| ListError::Decode(error.to_string()))
}

/// Where a plugin stands in `text`, and whether it is ours.
fn plugin(text: &str, raw: &RawValue) -> Result<(Range<usize>, bool), ListError> {
    let plugin: Plugin = decode(raw.get()).map_err(|_| ListError::Member("plugins are no objects"))?;
    // The raw value is borrowed from the text, so its address says where it stands.
    let start = raw.get().as_ptr().addr() - text.as_ptr().addr();
    let ours = plugin.kind.is_some_and(|kind| kind == PLUGIN);
    Ok((start..start + raw.get().len(), ours))
}

/// The newest version that the list allows and libcni 1.3.0 knows.
fn version(one: Option<Value>, several: Option<Value>) -> Result<&'static str, ListError> {
    let mut named = Vec::new();
    match several {
        None => {}
        Some(Value::Array(versions)) => {
            for version in versions {
                let Value::String(version) = version else {
                    return Err(ListError::Member("cniVersions are no strings"));
                };
                named.push(version);
            }
        }
        Some(_) => return Err(ListError::Member("cniVersions are no list")),
    }
    match one {
        None => {}
        Some(Value::String(version)) => named.push(version),
        Some(_) => return Err(ListError::Member("cniVersion is no string")),
    }
    let newest = SPOKEN.into_iter().rev().find(|spoken| named.iter().any(|named| named == spoken));
    newest.ok_or_else(|| ListError::Version(named.join(", ")))
}

/// A flag as libcni reads it: a truth value, or its name in any case.
fn flag(value: Option<Value>) -> Result<bool, ListError> {
    match value {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(ListError::Member("loadOnlyInlinedPlugins is neither true nor false")),
    }
}
