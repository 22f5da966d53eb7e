//! A Kubernetes API server alone, with its store, in a network namespace of its own: no controllers, no kubelet.
//!
//! In:  a scenario's name.
//! Out: an API server that answers `kubectl`, can be stopped and started, and can forget its history; daemons beside it
//!      that read from it.
//! Invariant: everything is named after the scenario and goes away with it.
//! Source: Kubernetes, "kube-apiserver", for flags; etcd, "Maintenance", for compaction.

mod bulk;
mod rights;

pub use bulk::Proxy;

use crate::cluster::applying;
use crate::daemon::{Daemon, Place};
use crate::exec::{Output, Process, checked, execute, feed};
use crate::leftovers::Run;
use crate::mesh::{BPF_DIR, mount_bpf};
use crate::netns::NetNs;
use crate::tools::{self, Kube};
use crate::wait::{self, PATIENCE};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The user who may do everything.
pub const ADMIN: &str = "admin";
/// The user as whom daemons ask; it may do what a test lets it.
pub const DAEMON: &str = "mesh-node";

/// How long the API server may take to start on a busy machine: a few seconds when it is idle.
const START: Duration = Duration::from_secs(90);
const STORE: &str = "http://127.0.0.1:2379";
const SERVER: &str = "https://127.0.0.1:6443";
/// Each user with its token and groups.
const USERS: [(&str, &str, &str); 2] = [(ADMIN, "admin-token", "system:masters"), (DAEMON, "daemon-token", "")];

/// An API server. It ends when this and its daemons are dropped.
#[derive(Debug)]
pub struct ApiServer(Arc<Stage>);

/// Fields are dropped in their order: processes, then their namespace, then the run that names it.
#[derive(Debug)]
struct Stage {
    server: Mutex<Option<Process>>,
    flags: Vec<String>,
    _store: Process,
    tools: Kube,
    ns: NetNs,
    run: Run,
}

impl Place for Stage {
    fn ns(&self) -> &NetNs {
        &self.ns
    }

    fn shows_logs(&self) -> bool {
        true
    }
}

impl ApiServer {
    /// Starts store and API server, and waits until it is ready.
    ///
    /// **Errors**: this is not root, a program is not built, the same scenario runs already, or it does not start.
    pub fn start(name: &str) -> Result<Self> {
        Self::start_with(name, &[])
    }

    /// As [`ApiServer::start`], with more flags of the API server.
    ///
    /// **Errors**: as [`ApiServer::start`].
    pub fn start_with(name: &str, flags: &[&str]) -> Result<Self> {
        let tools = tools::kube()?;
        let run = Run::begin(name)?;
        let ns = NetNs::create(&format!("{}-api", run.id))?;
        mount_bpf(&run)?;
        write_secrets(&run.dir)?;
        let mut store = ns.command(&tools.etcd);
        store.args(["--name", "store", "--unsafe-no-fsync", "--log-level", "warn", "--listen-client-urls", STORE]);
        store.args(["--advertise-client-urls", STORE, "--listen-peer-urls", "http://127.0.0.1:2380"]);
        store.args(["--initial-advertise-peer-urls", "http://127.0.0.1:2380"]);
        store.args(["--initial-cluster", "store=http://127.0.0.1:2380"]).arg("--data-dir").arg(run.dir.join("store"));
        let store = Process::start(&mut store, &run.dir.join("store.log"))?;
        let flags = flags.iter().map(ToString::to_string).collect();
        let own = Self(Arc::new(Stage { server: Mutex::new(None), flags, _store: store, tools, ns, run }));
        own.resume()?;
        for user in USERS {
            own.write_kubeconfig(user)?;
        }
        wait::until_true("the API server is ready", START, || own.is_ready())?;
        Ok(own)
    }

    /// Starts the API server again after [`ApiServer::stop`]; gives it back before it is ready.
    ///
    /// **Errors**: it cannot be started.
    pub fn resume(&self) -> Result<()> {
        let dir = &self.0.run.dir;
        let file = |flag: &str, name: &str| format!("--{flag}={}", dir.join(name).display());
        let mut command = self.0.ns.command(&self.0.tools.apiserver);
        command
            .arg(format!("--etcd-servers={STORE}"))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port=6443"])
            .args(["--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16"])
            .args(["--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount"])
            .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
            .arg(file("service-account-key-file", "accounts.pub"))
            .arg(file("service-account-signing-key-file", "accounts.key"))
            .arg(file("token-auth-file", "tokens.csv"))
            .arg(file("cert-dir", "serving"))
            // Its history is forgotten only when a test says so.
            .args(["--etcd-compaction-interval=0", "--shutdown-delay-duration=0s"])
            .args(&self.0.flags);
        let log = dir.join("apiserver.log");
        *self.server() = Some(Process::start(&mut command, &log)?);
        Ok(())
    }

    /// Ends the API server at once, as when its machine loses power; its store goes on.
    pub fn stop(&self) {
        drop(self.server().take());
    }

    /// Makes the API server forget its history: watches can go on only from now.
    ///
    /// **Errors**: the store does not do it.
    pub fn compact(&self) -> Result<()> {
        let revision = |answer: &str| -> Result<String> {
            let answer: Value = serde_json::from_str(answer).context("the store's answer")?;
            Ok(answer["header"]["revision"].as_str().context("no revision")?.to_owned())
        };
        // The gateway for JSON of the store's own API; texts are Base64 there.
        let now = self.ask_store("kv/range", &json!({"key": "Lw=="}))?;
        self.ask_store("kv/compaction", &json!({"revision": revision(&now)?, "physical": true}))?;
        Ok(())
    }

    fn ask_store(&self, what: &str, question: &Value) -> Result<String> {
        let url = format!("{STORE}/v3/{what}");
        self.0.ns.run("curl", ["--silent", "--show-error", "--fail", "--data", &question.to_string(), &url])
    }

    /// Runs `kubectl` as the admin.
    ///
    /// **Errors**: it cannot be run, or is too slow. That it failed is in the output.
    pub fn kubectl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        execute(self.kubectl_command().args(arguments), PATIENCE)
    }

    /// Creates or changes an object, its status with it.
    ///
    /// **Errors**: the API server does not answer, or refuses.
    pub fn apply(&self, object: &Value) -> Result<()> {
        self.apply_to("", object)?;
        if object.get("status").is_some() { self.apply_to("status", object) } else { Ok(()) }
    }

    fn apply_to(&self, subresource: &str, object: &Value) -> Result<()> {
        let mut command = self.kubectl_command();
        // Tests write objects that no client would.
        applying(&mut command).arg("--validate=ignore");
        if !subresource.is_empty() {
            command.arg(format!("--subresource={subresource}"));
        }
        let text = object.to_string();
        feed(&mut command, text.as_bytes(), PATIENCE)?.success().with_context(|| format!("cannot apply {text}"))?;
        Ok(())
    }

    /// Deletes an object at once; `arguments` name it, as in `["pod", "web", "--namespace", "shop"]`.
    ///
    /// **Errors**: the API server does not answer, or there is no such object.
    pub fn delete<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let how = ["--force", "--grace-period=0", "--timeout=15s"];
        self.kubectl(["delete"].into_iter().chain(arguments).chain(how))?.success()?;
        Ok(())
    }

    /// Is it ready to answer?
    ///
    /// **Errors**: it has ended.
    pub fn is_ready(&self) -> Result<bool> {
        let server = self.server();
        let server = server.as_ref().context("the API server is stopped")?;
        if let Some(status) = server.ended()? {
            bail!("the API server ended ({status}):\n{}", server.log());
        }
        // Only once it has made its certificate can anybody trust it.
        if !self.0.run.dir.join("serving/apiserver.crt").exists() {
            return Ok(false);
        }
        Ok(execute(self.kubectl_command().args(["get", "--raw", "/readyz"]), PATIENCE)?.status.success())
    }

    /// Starts a daemon that reads from this API server, with these further arguments; gives it back before it is ready.
    ///
    /// **Errors**: it is not built, or cannot be started.
    pub fn daemon(&self, arguments: &[&str]) -> Result<Daemon> {
        let dir = self.dir();
        let paths = [
            ("--kubeconfig", self.kubeconfig(DAEMON)),
            ("--state-dir", dir.join("state")),
            ("--ca-dir", dir.join("ca")),
            ("--bpf-dir", dir.join(BPF_DIR).join("a")),
            ("--cni-socket", self.socket()),
            // Unless a test says otherwise, the daemon needs no rights for identities.
            ("--issuer", "embedded".into()),
        ];
        let paths = paths.into_iter().flat_map(|(flag, path)| [OsString::from(flag), path.into()]);
        let arguments: Vec<OsString> = paths.chain(arguments.iter().map(OsString::from)).collect();
        Daemon::start_alone(Arc::clone(&self.0) as Arc<dyn Place>, dir, &arguments)
    }

    /// The same, once it is ready.
    ///
    /// **Errors**: as [`ApiServer::daemon`] and [`Daemon::ready`].
    pub fn ready_daemon(&self, arguments: &[&str]) -> Result<Daemon> {
        let daemon = self.daemon(arguments)?;
        daemon.ready()?;
        Ok(daemon)
    }

    /// Runs `work` on a thread beside it: what connects there reaches it.
    ///
    /// **Errors**: `work` fails.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.0.ns.enter(work)
    }

    /// A command that will run beside it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.0.ns.command(program)
    }

    /// Where daemons listen for the CNI plugin.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir().join("cni.sock")
    }

    /// The directory of everything that is made.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0.run.dir
    }

    /// A further namespace, named after the scenario.
    ///
    /// **Errors**: it exists.
    pub fn namespace(&self, name: &str) -> Result<NetNs> {
        NetNs::create(&format!("{}-{name}", self.0.run.id))
    }

    /// The kubeconfig of a user.
    #[must_use]
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir().join(format!("{user}.kubeconfig"))
    }

    fn write_kubeconfig(&self, (user, token, _): (&str, &str, &str)) -> Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": SERVER,
                "certificate-authority": self.dir().join("serving/apiserver.crt"),
            }}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        });
        fs::write(self.kubeconfig(user), config.to_string()).context("cannot write a kubeconfig")
    }

    /// `kubectl` as the admin.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        let mut command = self.0.ns.command(&self.0.tools.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig(ADMIN));
        command.arg("--cache-dir").arg(self.dir().join("kubectl"));
        command
    }

    fn server(&self) -> MutexGuard<'_, Option<Process>> {
        self.0.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key that signs tokens of service accounts, and the tokens of users.
fn write_secrets(dir: &Path) -> Result<()> {
    let (key, public) = (dir.join("accounts.key"), dir.join("accounts.pub"));
    checked(Command::new("openssl").args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"]).arg(&key))?;
    checked(Command::new("openssl").args(["ec", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public))?;
    let tokens: String =
        USERS.iter().map(|(user, token, groups)| format!("{token},{user},{user},\"{groups}\"\n")).collect();
    fs::write(dir.join("tokens.csv"), tokens).context("cannot write the tokens")
}
