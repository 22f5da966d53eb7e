//! Something wrong in a user's object, with the cure.

use super::Name;
use std::fmt;

/// Names one object of a user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// The kind, as in `Pod`.
    pub kind: String,
    /// Namespace and name.
    pub name: Name,
}

impl ObjectRef {
    /// The object of this kind and name.
    pub fn new(kind: impl Into<String>, name: Name) -> Self {
        Self { kind: kind.into(), name }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// What kind of thing is wrong, for programs, which do not read sentences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Something has no effect, or not the one that was meant.
    #[default]
    Remark,
    /// A value closes what it belongs to: it is not supported, or not understood.
    Unsupported,
    /// Filters of one rule contradict each other, which closes the rule.
    IncompatibleFilters,
    /// A listener's protocol is not served.
    UnsupportedProtocol,
    /// A listener's port is another's, in another protocol.
    ProtocolConflict,
    /// A listener's host is another's, with another certificate.
    HostnameConflict,
    /// A reference to a certificate that is none, or not there.
    InvalidCertificate,
    /// A reference is to a kind that cannot be referred to.
    InvalidKind,
    /// A reference to another namespace, which has not allowed it.
    NotPermitted,
    /// A reference to what is not there.
    NotFound,
    /// What an object attaches to has no place for it.
    NoMatchingParent,
    /// What an object attaches to does not take it.
    NotAllowed,
    /// What an object attaches to serves none of its hosts.
    NoMatchingHost,
}

/// Something wrong in a user's object. What it affects is closed, never skipped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issue {
    /// The object at fault.
    pub object: ObjectRef,
    /// Path of the field at fault, as in `spec.mtls.mode`; empty for the object as a whole.
    pub field: String,
    /// What is wrong and what follows from it, in lower case.
    pub problem: String,
    /// What to do about it, in lower case.
    pub cure: String,
    /// What kind of thing is wrong.
    pub reason: Reason,
}

impl Issue {
    /// Something wrong with `field` of `object`.
    pub fn new(
        object: &ObjectRef,
        field: impl Into<String>,
        problem: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        let (problem, cure, reason) = (problem.into(), cure.into(), Reason::default());
        Self { object: object.clone(), field: field.into(), problem, cure, reason }
    }

    /// The same, because of `reason`.
    #[must_use]
    pub fn because(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object)?;
        if !self.field.is_empty() {
            write!(f, ", {}", self.field)?;
        }
        write!(f, ": {}; {}", self.problem, self.cure)
    }
}
