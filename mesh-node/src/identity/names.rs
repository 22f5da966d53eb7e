//! What the mesh's identity is called in the Kubernetes API.
//!
//! Out: names of the signer and of its objects, and the keys within them.
//! Invariant: the manifests use the same names; the suite of the cluster's identity applies them.

/// The signer, as requests name it.
pub const SIGNER: &str = "mesh.internal/svid";
/// The roots where ClusterTrustBundles are served: the signer's name, as the API demands it, and a name of its own.
pub const TRUST_BUNDLE: &str = "mesh.internal:svid:roots";
/// The roots where ClusterTrustBundles are not served: a ConfigMap in the daemon's namespace.
pub const ROOTS_CONFIG_MAP: &str = "mesh-roots";
/// The key of the roots in that ConfigMap.
pub const ROOTS_KEY: &str = "roots.pem";
/// The Secret of the roots that the mesh made, in the daemon's namespace.
pub const CA_SECRET: &str = "mesh-ca";
/// The Secret of an authority that the operator supplies; name and keys are those that Istio gives it.
pub const SUPPLIED_SECRET: &str = "cacerts";
/// The lease for which the daemons compete, in their namespace.
pub const LEASE: &str = "mesh-signer";

/// Since when each root has been published: JSON from its fingerprint to seconds since 1970.
pub(super) const SINCE_ANNOTATION: &str = "mesh.internal/trusted-since";
/// The pod that a CertificateSigningRequest is for: `<namespace>/<name>`.
pub const POD_ANNOTATION: &str = "mesh.internal/pod";
/// The UID of that pod.
pub const POD_UID_ANNOTATION: &str = "mesh.internal/pod-uid";
/// Where the API server notes the node to which the requester's token is bound.
pub(super) const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";
