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
}

impl Issue {
    /// Something wrong with `field` of `object`.
    pub fn new(
        object: &ObjectRef,
        field: impl Into<String>,
        problem: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self { object: object.clone(), field: field.into(), problem: problem.into(), cure: cure.into() }
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
