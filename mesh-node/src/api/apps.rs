//! What controllers make pods of, and what they make of services.
//!
//! In:  objects that the data plane has no need of, since it knows the pods themselves.
//! Out: [`Plan`].
//! Source: the Kubernetes API reference, `apps/v1`, `batch/v1`, `core/v1.Service`.

use super::core::{PodSpec, PortOrName};
use super::meta::{ObjectMeta, nullable};
use serde::Deserialize;

/// What a controller would make something of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Pods.
    Pods(Maker, Box<PodPlan>),
    /// Endpoints of a service.
    Endpoints(Exposure),
}

/// A kind whose controller makes pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Maker {
    /// `apps/v1`.
    Deployment,
    /// `apps/v1`.
    StatefulSet,
    /// `apps/v1`.
    DaemonSet,
    /// `apps/v1`.
    ReplicaSet,
    /// `batch/v1`.
    Job,
    /// `batch/v1`.
    CronJob,
}

impl Maker {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Deployment, Self::StatefulSet, Self::DaemonSet, Self::ReplicaSet, Self::Job, Self::CronJob];

    /// The kind, as objects write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }

    /// Its group and version.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet | Self::ReplicaSet => "apps/v1",
            Self::Job | Self::CronJob => "batch/v1",
        }
    }
}

/// An object that pods are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PodPlan {
    /// Name, namespace and owners.
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: PodPlanSpec,
}

impl PodPlan {
    /// The template of its pods, if it has one.
    #[must_use]
    pub fn template(&self) -> Option<&PodTemplate> {
        let of_job = || self.spec.job_template.as_ref()?.spec.template.as_ref();
        self.spec.template.as_ref().or_else(of_job)
    }
}

/// What is asked of a controller that makes pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPlanSpec {
    /// The template of pods.
    #[serde(default)]
    pub template: Option<PodTemplate>,
    /// A CronJob's template of jobs.
    #[serde(default)]
    pub job_template: Option<JobTemplate>,
}

/// What a pod is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PodTemplate {
    /// Labels and annotations.
    #[serde(default, deserialize_with = "nullable")]
    pub metadata: ObjectMeta,
    /// What the pod is asked to be.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: PodSpec,
}

/// What a job is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct JobTemplate {
    /// What the job is asked to be.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: JobSpec,
}

/// What a job is asked to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct JobSpec {
    /// The template of its pods.
    #[serde(default)]
    pub template: Option<PodTemplate>,
}

/// A service, as the controller of endpoints reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Exposure {
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: ExposureSpec,
}

/// What is asked of the controller of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ExposureSpec {
    /// The ports.
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Vec<ExposedPort>,
}

/// A port of a service, and where it leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExposedPort {
    /// Its name; empty if it is the only one.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// The port clients dial.
    pub port: u16,
    /// The port of the pods; without one that which clients dial.
    #[serde(default)]
    pub target_port: Option<PortOrName>,
    /// The protocol; empty means TCP.
    #[serde(default, deserialize_with = "nullable")]
    pub protocol: String,
}
