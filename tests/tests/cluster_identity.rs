//! Identities in a cluster: a real API server with its access control and admission policies, the daemons' issuers and
//! the signer that one of them runs.

use anyhow::{Context, Result, bail, ensure};
use mesh_node::cluster;
use mesh_node::identity::signer::{self, Signer};
use mesh_node::identity::{Bearer, Clock, ClusterIssuer, Config, Keyring, Wanted, Way};
use mesh_node::model::Identity;
use mesh_node::telemetry::Metrics;
use mesh_tests::{ADMIN, ApiServer, Output, wait};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::{Interval, MissedTickBehavior};

/// Long enough for an election after a leader vanished, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "mesh-system";

/// An API server with the mesh's rights and policies, two nodes with a daemon's pod each, and pods of users.
struct Cluster {
    api: ApiServer,
}

impl Cluster {
    fn start(name: &str, flags: &[&str]) -> Result<Self> {
        let own = Self { api: ApiServer::start_with(name, flags)? };
        for namespace in [NAMESPACE, "shop"] {
            own.create("Namespace", "", namespace, json!({}))?;
        }
        for account in ["mesh-node", "mesh-signer"] {
            own.create("ServiceAccount", NAMESPACE, account, json!({}))?;
        }
        for node in ["a", "b"] {
            own.create("Node", "", node, json!({}))?;
            own.pod(NAMESPACE, &format!("mesh-node-{node}"), "mesh-node", node)?;
        }
        for account in ["web", "api"] {
            own.create("ServiceAccount", "shop", account, json!({}))?;
        }
        own.pod("shop", "web-a", "web", "a")?;
        own.pod("shop", "api-b", "api", "b")?;
        for manifest in ["identity-rbac.yaml", "identity-policy.yaml"] {
            own.install(manifest)?;
        }
        own.await_policies()?;
        Ok(own)
    }

    /// Makes an object of `v1`; its namespace is empty if it has none.
    fn create(&self, kind: &str, namespace: &str, name: &str, rest: Value) -> Result<()> {
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        for (key, value) in rest.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        self.api.apply(&object)
    }

    fn pod(&self, namespace: &str, name: &str, account: &str, node: &str) -> Result<()> {
        let containers = json!([{"name": "main", "image": "none"}]);
        let spec = json!({"serviceAccountName": account, "nodeName": node, "containers": containers});
        self.create("Pod", namespace, name, json!({"spec": spec}))
    }

    /// Applies a template of the chart, which uses nothing but the namespace of its release.
    fn install(&self, manifest: &str) -> Result<()> {
        let template = format!("{}/../manifests/mesh/templates/{manifest}", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(&template).with_context(|| format!("no {template}"))?;
        let text = text.replace("{{ .Release.Namespace }}", NAMESPACE);
        ensure!(!text.contains("{{"), "{manifest} uses more than the namespace of its release");
        let path = self.api.dir().join(manifest);
        fs::write(&path, text)?;
        let path = path.to_str().context("an odd path")?;
        self.kubectl(&["apply", "--server-side", "-f", path])?;
        Ok(())
    }

    /// Policies take effect a little after they are there.
    fn await_policies(&self) -> Result<()> {
        let request = self.api.dir().join("probe.json");
        let metadata = json!({"generateName": "probe-"});
        let make = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj / | base64 -w0";
        let made = Command::new("sh").args(["-c", make]).output()?;
        let pkcs10 = String::from_utf8(made.stdout)?;
        let spec = json!({"signerName": "mesh.internal/svid", "request": pkcs10, "usages": ["digital signature"]});
        let probe = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": metadata, "spec": spec,
        });
        fs::write(&request, probe.to_string())?;
        let path = request.to_str().context("an odd path")?.to_owned();
        wait::until_true("the policies are in force", PATIENCE, || {
            let refused = self.api.kubectl(["create", "--dry-run=server", "-f", path.as_str()])?;
            Ok(refused.stderr.contains("only the mesh's daemons may ask"))
        })
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.api.kubectl(arguments.iter().copied())?.success()?.to_owned())
    }

    fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// A kubeconfig with a token of the daemon's service account, bound to its pod on a node or, without one, to nothing.
    fn credentials(&self, node: Option<&str>) -> Result<PathBuf> {
        let pod = node.map(|node| format!("mesh-node-{node}"));
        self.kubeconfig("mesh-node", pod.as_deref())
    }

    /// A kubeconfig with a token of the signers' service account.
    fn signer_credentials(&self) -> Result<PathBuf> {
        self.kubeconfig("mesh-signer", None)
    }

    fn kubeconfig(&self, account: &str, pod: Option<&str>) -> Result<PathBuf> {
        let mut arguments = vec!["create", "token", account, "--namespace", NAMESPACE];
        if let Some(pod) = pod {
            arguments.extend(["--bound-object-kind", "Pod", "--bound-object-name", pod]);
        }
        let token = self.kubectl(&arguments)?;
        let mut config: Value = serde_json::from_str(&fs::read_to_string(self.api.kubeconfig(ADMIN))?)?;
        config["users"][0]["user"] = json!({"token": token.trim()});
        let path = self.api.dir().join(format!("{account}-{}.kubeconfig", pod.unwrap_or("unbound")));
        fs::write(&path, config.to_string())?;
        Ok(path)
    }

    fn bearer(&self, namespace: &str, pod: &str) -> Result<Bearer> {
        let found = self.get(&["pod", pod, "--namespace", namespace])?;
        let uid = found["metadata"]["uid"].as_str().context("no UID")?;
        Ok(Bearer { pod: pod.into(), uid: uid.into() })
    }

    fn roots(&self) -> Result<usize> {
        let bundle = self.get(&["clustertrustbundle", "mesh.internal:svid:roots"])?;
        Ok(bundle["spec"]["trustBundle"].as_str().unwrap_or_default().matches("BEGIN CERTIFICATE").count())
    }

    /// Runs `work` beside the API server.
    fn run<T: Send>(&self, work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
        self.api.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        })
    }
}

fn id(account: &str) -> Arc<Identity> {
    Arc::new(format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().expect("an identity"))
}

fn settings(candidate: &str) -> signer::Settings {
    signer::Settings {
        namespace: NAMESPACE.to_owned(),
        service_account: "mesh-node".to_owned(),
        candidate: candidate.to_owned(),
        trust_domain: "cluster.local".into(),
        root_ttl: Duration::from_secs(365 * 24 * 3600),
        overlap: Duration::from_secs(3600),
    }
}

async fn signer(credentials: &Path, candidate: &str) -> Result<Signer> {
    let client = cluster::client(Some(credentials)).await?;
    Ok(Signer::start(client, settings(candidate), Clock::system(), &Metrics::default()))
}

/// A node's keyring, which asks with these credentials for the pods of this node.
async fn keyring(cluster: &Cluster, credentials: &Path, node: &str, way: Way) -> Result<Keyring> {
    let client = cluster::client(Some(credentials)).await?;
    let state = cluster.api.dir().join(format!("state-{node}"));
    let config = Config::new("unused".into(), state, "cluster.local".into()).for_cluster()?;
    let issuer = ClusterIssuer::new(client, NAMESPACE, node, "cluster.local".into(), way);
    Ok(Keyring::start_with(&config, Arc::new(issuer), Clock::system(), &Metrics::default())?)
}

async fn ready(keyring: &Keyring, identity: &Identity) -> Result<()> {
    match tokio::time::timeout(PATIENCE, keyring.ready(identity)).await {
        Ok(ready) => Ok(ready?),
        Err(_) => bail!("no certificate for {identity}: {:?}", keyring.failure(identity)),
    }
}

/// Beats between looks at a condition, which leave the rest its time however long a look takes.
fn looks() -> Interval {
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// Why a keyring gets no certificate.
async fn refusal(keyring: &Keyring, account: &str, bearer: Bearer) -> Result<String> {
    let identity = id(account);
    keyring.want([(Arc::clone(&identity), bearer)].into());
    let mut looks = looks();
    let deadline = Instant::now() + PATIENCE;
    loop {
        looks.tick().await;
        ensure!(keyring.current(&identity).is_none(), "{identity} was issued");
        let failure = keyring.failure(&identity);
        // Until the signer leads and has published roots, attempts fail for other reasons.
        match failure {
            Some(failure) if failure.contains("the issuer refuses") => return Ok(failure.to_string()),
            Some(_) | None if Instant::now() < deadline => {}
            other => bail!("not refused: {other:?}"),
        }
    }
}

#[test]
fn daemons_get_the_identities_of_their_own_pods_from_the_one_that_signs() -> Result<()> {
    let cluster = Cluster::start("identity", &[])?;
    let (a, b) = (cluster.credentials(Some("a"))?, cluster.credentials(Some("b"))?);
    let signs = cluster.signer_credentials()?;
    let (web, api) = (cluster.bearer("shop", "web-a")?, cluster.bearer("shop", "api-b")?);
    cluster.run(async || {
        let mut signers = vec![signer(&signs, "a").await?, signer(&signs, "b").await?];
        let (on_a, on_b) = (keyring(&cluster, &a, "a", Way::Auto).await?, keyring(&cluster, &b, "b", Way::Auto).await?);
        on_a.want([(id("web"), web.clone())].into());
        on_b.want([(id("api"), api.clone())].into());
        ready(&on_a, &id("web")).await?;
        ready(&on_b, &id("api")).await?;
        ensure!(cluster.roots()? == 1, "two daemons that start together make one root");
        let secret = cluster.get(&["secret", "mesh-ca", "--namespace", NAMESPACE])?;
        let kept = secret["data"].as_object().context("an empty Secret")?.keys().filter(|key| key.ends_with(".crt"));
        ensure!(kept.count() == 1, "one root in the Secret");

        // The key of the authority is for signers alone.
        for (credentials, may) in [(&signs, true), (&a, false)] {
            let path = credentials.to_str().context("a path that is no text")?;
            let read = ["--kubeconfig", path, "get", "secret", "mesh-ca", "--namespace", NAMESPACE];
            let answer = cluster.api.kubectl(read)?;
            ensure!(answer.status.success() == may, "{}: {}", credentials.display(), answer.stderr);
            ensure!(may || answer.stderr.contains("Forbidden"), "{}", answer.stderr);
        }

        // What was granted is cleaned up by who asked.
        let mut looks = looks();
        let deadline = Instant::now() + PATIENCE;
        while cluster.get(&["podcertificaterequests", "-A"])?["items"].as_array().is_some_and(|left| !left.is_empty()) {
            ensure!(Instant::now() < deadline, "requests are left over");
            looks.tick().await;
        }

        // The leader goes; the other signs, with the same root.
        let holder = |cluster: &Cluster| -> Result<String> {
            let lease = cluster.get(&["lease", "mesh-signer", "--namespace", NAMESPACE])?;
            Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
        };
        let leads = holder(&cluster)?;
        let at = usize::from(leads.starts_with("b_"));
        signers.remove(at).resign().await;
        cluster.pod("shop", "late-a", "api", "a")?;
        on_a.want([(id("web"), web.clone()), (id("api"), cluster.bearer("shop", "late-a")?)].into());
        ready(&on_a, &id("api")).await?;
        ensure!(holder(&cluster)? != leads && cluster.roots()? == 1, "another leads with the same root");

        // A root is added by hand: it is trusted at once and does not sign yet.
        let client = cluster::client(Some(&cluster.api.kubeconfig(ADMIN))).await?;
        let year = Duration::from_secs(365 * 24 * 3600);
        signer::rotate(client, NAMESPACE, (&"cluster.local".into(), year), SystemTime::now()).await?;
        let deadline = Instant::now() + PATIENCE;
        while cluster.roots()? != 2 {
            ensure!(Instant::now() < deadline, "the second root is not published");
            looks.tick().await;
        }
        Ok(())
    })?;

    // A daemon that starts while the API is away has what it had.
    cluster.api.stop();
    cluster.run(async || {
        let keyring = keyring(&cluster, &a, "a", Way::Auto).await?;
        keyring.want([(id("web"), web.clone())].into());
        ready(&keyring, &id("web")).await
    })
}

#[test]
fn a_stolen_token_gets_no_identity_of_a_pod_of_another_node() -> Result<()> {
    let cluster = Cluster::start("identity-theft", &[])?;
    let (a, b) = (cluster.credentials(Some("a"))?, cluster.credentials(Some("b"))?);
    let unbound = cluster.credentials(None)?;
    let (web, api) = (cluster.bearer("shop", "web-a")?, cluster.bearer("shop", "api-b")?);
    cluster.pod("shop", "done-a", "web", "a")?;
    let finished = json!({"spec": {"serviceAccountName": "web", "nodeName": "a",
        "containers": [{"name": "main", "image": "none"}]}, "status": {"phase": "Succeeded"}});
    cluster.create("Pod", "shop", "done-a", finished)?;
    let done = cluster.bearer("shop", "done-a")?;
    let admin = cluster.api.kubeconfig(ADMIN);
    let stale = Bearer { uid: "00000000-0000-0000-0000-000000000000".into(), ..web.clone() };
    // Who asks; for the pods of which node it claims to ask; for which pod; what it hears.
    let cases: [(&str, &Path, &str, &str, &Bearer, &str); 7] = [
        ("for b", &a, "b", "api", &api, "the token is bound to the node a, not to b"),
        ("lying about the node", &a, "a", "api", &api, "PodOnOtherNode"),
        ("with a pod that is gone", &a, "a", "web", &stale, "PodNotFound"),
        ("with a finished pod", &a, "a", "web", &done, "PodFinished"),
        ("as another account", &a, "a", "api", &web, "OtherServiceAccount"),
        ("unbound", &unbound, "a", "web", &web, "the token is bound to the node , not to a"),
        ("an administrator", &admin, "a", "web", &web, "only the mesh's daemons"),
    ];
    cluster.run(async || {
        let _signer = signer(&cluster.signer_credentials()?, "b").await?;
        for (name, credentials, node, account, bearer, expected) in cases {
            let client = cluster::client(Some(credentials)).await?;
            let state = cluster.api.dir().join("thief").join(name.replace(' ', "-"));
            let config = Config::new("unused".into(), state, "cluster.local".into()).for_cluster()?;
            let issuer = ClusterIssuer::new(client, NAMESPACE, node, "cluster.local".into(), Way::PodCertificate);
            let keyring = Keyring::start_with(&config, Arc::new(issuer), Clock::system(), &Metrics::default())?;
            let heard = refusal(&keyring, account, bearer.clone()).await?;
            ensure!(heard.contains(expected), "{name}: {heard}");
        }
        // The same pod is served when its own node asks.
        let keyring = keyring(&cluster, &b, "b", Way::PodCertificate).await?;
        keyring.want([(id("api"), api.clone())].into());
        ready(&keyring, &id("api")).await
    })?;

    // Nor may a daemon withdraw what others asked: here a denied request of node a.
    let left = cluster.get(&["podcertificaterequests", "-A"])?;
    let of_a = left["items"].as_array().into_iter().flatten().find(|request| request["spec"]["nodeName"] == "a");
    let name = of_a.and_then(|request| request["metadata"]["name"].as_str()).context("no denied request is left")?;
    let (b, admin) =
        (b.to_str().context("an odd path")?, ["delete", "podcertificaterequest", name, "--namespace", "shop"]);
    let deleted: Output = cluster.api.kubectl([&admin[..], &["--kubeconfig", b]].concat())?;
    ensure!(deleted.stderr.contains("a daemon may delete requests that are its own node's only"), "{}", deleted.stderr);
    Ok(())
}

#[test]
fn an_api_server_without_pod_certificates_is_asked_by_signing_requests() -> Result<()> {
    let cluster = Cluster::start(
        "identity-csr",
        &["--feature-gates=PodCertificateRequest=false,ClusterTrustBundle=false,ClusterTrustBundleProjection=false"],
    )?;
    let (a, unbound) = (cluster.credentials(Some("a"))?, cluster.credentials(None)?);
    let (web, api) = (cluster.bearer("shop", "web-a")?, cluster.bearer("shop", "api-b")?);
    cluster.run(async || {
        let _signer = signer(&cluster.signer_credentials()?, "a").await?;
        let own = keyring(&cluster, &a, "a", Way::Auto).await?;
        own.want([(id("web"), web.clone())].into());
        ready(&own, &id("web")).await?;
        let roots = cluster.get(&["configmap", "mesh-roots", "--namespace", NAMESPACE])?;
        ensure!(roots["data"]["roots.pem"].as_str().is_some_and(|roots| roots.contains("BEGIN CERTIFICATE")));

        // The node is the token's, whatever the asker says.
        let thief = keyring(&cluster, &a, "b", Way::Csr).await?;
        let heard = refusal(&thief, "api", api.clone()).await?;
        ensure!(heard.contains("PodOnOtherNode") && heard.contains("not on the node a"), "{heard}");
        let thief = keyring(&cluster, &unbound, "unbound", Way::Csr).await?;
        let heard = refusal(&thief, "web", web.clone()).await?;
        ensure!(heard.contains("the token is bound to no node"), "{heard}");

        // A choice that the API server does not serve is named, with the cure.
        let chosen = keyring(&cluster, &a, "chosen", Way::PodCertificate).await?;
        chosen.want([(id("web"), web.clone())].into());
        let mut looks = looks();
        let deadline = Instant::now() + PATIENCE;
        while chosen.failure(&id("web")).is_none() && Instant::now() < deadline {
            looks.tick().await;
        }
        let heard = chosen.failure(&id("web")).context("no failure")?;
        ensure!(heard.contains("PodCertificateRequest: choose another --issuer"), "{heard}");
        Ok(())
    })
}

#[test]
fn a_node_full_of_pods_gets_its_identities_without_a_storm() -> Result<()> {
    const PODS: usize = 110;
    let cluster = Cluster::start("identity-full", &[])?;
    let a = cluster.credentials(Some("a"))?;
    let items: Vec<_> = (0..PODS)
        .flat_map(|number| {
            let name = format!("full-{number}");
            let metadata = json!({"name": name, "namespace": "shop"});
            let containers = json!([{"name": "main", "image": "none"}]);
            let spec = json!({"serviceAccountName": name, "nodeName": "a", "containers": containers});
            [
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}),
            ]
        })
        .collect();
    let path = cluster.api.dir().join("full.json");
    fs::write(&path, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    cluster.kubectl(&["create", "-f", path.to_str().context("an odd path")?])?;
    let pods = cluster.get(&["pods", "--namespace", "shop"])?;
    let mut wanted = Wanted::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let text = |at: &str| pod["metadata"][at].as_str().unwrap_or_default().to_owned();
        if text("name").starts_with("full-") {
            wanted.insert(id(&text("name")), Bearer { pod: text("name").into(), uid: text("uid").into() });
        }
    }
    ensure!(wanted.len() == PODS);
    cluster.run(async || {
        let _signer = signer(&cluster.signer_credentials()?, "a").await?;
        let keyring = keyring(&cluster, &a, "a", Way::Auto).await?;
        keyring.want([(id("full-0"), wanted[&id("full-0")].clone())].into());
        ready(&keyring, &id("full-0")).await?;
        let began = Instant::now();
        keyring.want(wanted.clone());
        for identity in wanted.keys() {
            ready(&keyring, identity).await?;
        }
        println!("{PODS} identities in {:?}", began.elapsed());
        Ok(())
    })
}
