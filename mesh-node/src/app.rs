//! Puts the daemon together, runs it, and takes it down again.
//!
//! In:  the settings.
//! Out: a running daemon; [`AppError`] when it cannot start.
//! Invariant: pods of a daemon that starts beside another stay with the other until each is enrolled here.
//! Invariant: on SIGTERM open connections go on until the deadline; what is in the kernel stays, so that a pod without
//! a daemon is closed, not open.

pub mod ending;
mod explaining;
mod issuing;
mod joining;
mod reporting;
mod signing;

use crate::admin::{self, AdminError};
use crate::announce::Announcer;
use crate::api::announcement::ANNOUNCEMENT;
use crate::api::custom::CustomKind;
use crate::chain::{Chain, ChainError, UnknownRuntime};
use crate::config::{self, Ca, CaCommand, Cli, Command, Probe, Run, SharedCa, Uninstall};
use crate::control::{Asked, Control, HEARD, Inputs, Parts, Steerer};
use crate::identity::{self, IdentityError};
use crate::model::{self, Identity};
use crate::proxy::{self, At, Departure, Feed, Observers, Proxy, ProxyError, TellDenied};
use crate::snapshot::edge::GatewayRef;
use crate::source::cni::{self, AttachmentStore, SocketError, StoreError};
use crate::source::{file, kube};
use crate::status::{About, Denial, Notice, Notices, What};
use crate::steer::{self, SteerError, Steering};
use crate::telemetry::access::AccessLog;
use crate::telemetry::http::HttpMetrics;
use crate::telemetry::tcp::{self, TcpMetrics};
use crate::telemetry::trace::{self, Tracer};
use crate::telemetry::{self, Metrics, TelemetryError};
use crate::world::Change;
use crate::{cluster, compile, sys, translate, why};
use ending::Ending;
use mesh_common::cni::{DEFAULT_SOCKET, Response};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Edges that telemetry tells apart.
const MAX_EDGES: usize = 10_000;
/// Edges of requests whose counters are kept: each is some seventy lines of metrics.
const MAX_HTTP_EDGES: usize = 2_000;
/// Threads by default, however many processors there are.
const MAX_WORKERS: usize = 8;
/// Descriptors that are not for connections.
const SPARE_DESCRIPTORS: u64 = 1024;
/// Changes that may wait for the loop.
const CHANGES: usize = 1024;
/// How long the last access records, and the last changes of objects, may take to be written.
const FLUSH: Duration = Duration::from_secs(2);

/// Why the program cannot do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The runtime or the signals.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// Logs or metrics.
    #[error("cannot start telemetry")]
    Telemetry(#[from] TelemetryError),
    /// Certificates.
    #[error("cannot look after certificates")]
    Identity(#[from] IdentityError),
    /// The certificate authority.
    #[error("cannot rotate the root")]
    Ca(#[from] identity::ca::CaError),
    /// The certificate authority of the cluster.
    #[error("cannot rotate the root of the cluster")]
    SharedCa(#[from] identity::signer::KeepError),
    /// An issuer of a cluster without one.
    #[error("this --issuer needs the Kubernetes API: leave --objects out, or use `--issuer embedded`")]
    IssuerNeedsCluster,
    /// Traffic.
    #[error("cannot carry traffic")]
    Proxy(#[from] ProxyError),
    /// The daemons' own identity cannot be formed.
    #[error("the trust domain, the namespace and the service account of the daemons are no identity")]
    OwnName(#[from] model::IdentityError),
    /// The kernel.
    #[error("cannot steer traffic")]
    Steer(#[from] SteerError),
    /// The attachments on disk.
    #[error("cannot remember pods")]
    Store(#[from] StoreError),
    /// The users' objects.
    #[error("cannot read the users' objects")]
    Objects(#[from] file::FileError),
    /// The API server.
    #[error("cannot use the Kubernetes API")]
    Cluster(#[from] cluster::ClusterError),
    /// The CNI socket.
    #[error("cannot listen for the CNI plugin")]
    Socket(#[from] SocketError),
    /// The admin server.
    #[error("cannot serve the admin address")]
    Admin(#[from] AdminError),
    /// The daemon's answer.
    #[error("cannot show the status")]
    Status(#[from] admin::status::StatusError),
    /// The question is not clear.
    #[error(transparent)]
    Why(#[from] why::WhyError),
    /// The answer cannot be written as JSON.
    #[error("cannot write the answer")]
    Answer(#[source] serde_json::Error),
    /// Something is wrong with the objects.
    #[error("{issues} issue(s)")]
    Lint {
        /// How many.
        issues: usize,
    },
    /// The daemon is not well.
    #[error("the probe failed")]
    Probe(#[source] admin::status::StatusError),
    /// The runtime's chain.
    #[error("cannot look after the container runtime's chain of plugins")]
    Chain(#[from] ChainError),
    /// What the container runtime is.
    #[error("cannot put the plugin into the container runtime's chain")]
    ContainerRuntime(#[from] UnknownRuntime),
}

/// Does what the command line says.
///
/// **Errors**: what was told cannot be done; the error and its causes say why, and the cure where it is known.
pub fn main(cli: Cli) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Runtime)?;
    match cli.command {
        Command::Run(run) => runtime.block_on(daemon(*run)),
        Command::Sign(settings) => runtime.block_on(signing::sign(*settings)),
        Command::Report(settings) => runtime.block_on(reporting::report(*settings)),
        Command::Status { admin_addr } => {
            print!("{}", runtime.block_on(admin::status::status(admin_addr))?);
            Ok(())
        }
        Command::Why(why) => explaining::why(*why, &runtime),
        Command::Lint(lint) => explaining::lint(lint),
        Command::Ca { command: CaCommand::Rotate { ca, shared } } if shared.in_cluster => {
            let root = runtime.block_on(rotate_shared(ca, shared))?;
            println!("root {root} is trusted within seconds and will sign after the overlap");
            Ok(())
        }
        Command::Probe { what, admin_socket } => {
            let probe = admin::status::probe(&admin_socket, what == Probe::Ready);
            runtime.block_on(probe).map_err(AppError::Probe)
        }
        Command::Uninstall(settings) => runtime.block_on(uninstall(&settings)),
        Command::Ca { command: CaCommand::Rotate { ca, .. } } => {
            let Ca { ca_dir, trust_domain, root_ttl } = ca;
            let root = identity::ca::rotate(&ca_dir, &trust_domain.into(), root_ttl, SystemTime::now())?;
            println!("root {root} is trusted now and will sign after the overlap");
            Ok(())
        }
    }
}

async fn rotate_shared(ca: Ca, shared: SharedCa) -> Result<String, AppError> {
    let client = cluster::client(shared.kubeconfig.as_deref()).await?;
    let root = (&ca.trust_domain.into(), ca.root_ttl);
    Ok(identity::signer::rotate(client, &shared.namespace, root, SystemTime::now()).await?)
}

/// What each long-lived program of the mesh begins with.
struct Begun {
    signals: Signals,
    metrics: Metrics,
    listeners: admin::Listeners,
}

/// Begins to log, to count and to listen: a wrong address ends the start before anything is touched.
fn begin((log, filter): (telemetry::log::Format, &str), admin: &config::Admin) -> Result<Begun, AppError> {
    telemetry::log::init(log, filter)?;
    let signals = Signals::new().map_err(AppError::Runtime)?;
    let metrics = Metrics::default();
    telemetry::process::register(&metrics, env!("CARGO_PKG_VERSION"));
    let listeners = listen(admin)?;
    Ok(Begun { signals, metrics, listeners })
}

/// Serves this node's pods until told to stop.
async fn daemon(run: Run) -> Result<(), AppError> {
    let Begun { mut signals, metrics, listeners } = begin((run.log, &run.log_filter), &run.admin)?;
    let descriptors = sys::limit::raise_open_files().map_err(AppError::Runtime)?;
    let access = AccessLog::start(run.access_log, &metrics)?;
    let tracer = Tracer::start(trace_settings(&run), &metrics)?;
    let origin = Origin::of(&run).await?;
    let api = origin.client();
    let (announcer, installation) = announcer(&run, api.as_ref(), &metrics)?;
    let keyring = issuing::start(&run, api.clone(), &metrics)?;
    let feed = Arc::<Feed>::default();
    let tcp = TcpMetrics::new(&metrics, tcp::Settings { cluster: run.cluster_name.clone(), max_edges: MAX_EDGES });
    telemetry::spawn("edges", tcp.clone().keep_retiring());
    let edges = telemetry::http::Settings { cluster: run.cluster_name.clone(), max_edges: MAX_HTTP_EDGES };
    let http = HttpMetrics::new(&metrics, edges);
    telemetry::spawn("http-edges", http.clone().keep_retiring());
    let notices = notices(&run, api.as_ref(), &metrics);
    let denied = tell_denied(notices.clone());
    let observers = Observers { access: access.clone(), tcp, http, tracer: tracer.clone(), denied };
    let node = node_settings(&run)?;
    let traffic = proxy_config(&run, descriptors, &node);
    let proxy = Proxy::start(traffic, Arc::clone(&feed), keyring.clone(), observers, &metrics)?;
    let proxy = Arc::new(proxy);
    let steering = Steering::start(steer_config(&run), &metrics)?;
    let (reported, reports) = mpsc::unbounded_channel();
    let steerer =
        Steerer::start(steering, run.netns_dir.clone(), Arc::clone(&proxy), reported).map_err(AppError::Runtime)?;

    let (changed, changes) = mpsc::channel(CHANGES);
    let objects = Objects::watch(&run, origin, changed, &metrics)?;
    let (asked, requests) = mpsc::unbounded_channel();
    let (open, listening) = oneshot::channel();
    let control = Control::new(Parts {
        names: translate::Settings {
            trust_domain: run.ca.trust_domain.as_str().into(),
            root_namespace: run.root_namespace.clone(),
            cluster_domain: run.cluster_domain.clone(),
            installation,
        },
        node,
        feed: Arc::clone(&feed),
        keyring,
        proxy: Arc::clone(&proxy),
        steerer: steerer.clone(),
        store: AttachmentStore::open(&run.state_dir)?,
        metrics: metrics.clone(),
        notices,
        announcer,
        own_pod: run.pod_name.as_deref().map(|name| model::Name::new(run.cluster.namespace.as_str(), name)),
    });
    let keeper = objects.keep(&run, &control);
    let own = api.clone().zip(run.daemon_set.as_deref()).map(|(api, name)| ending::Own::watch(api, name));
    let chain = joining::start(&run.chain, &run.state_dir, &run.cni_socket, &metrics)?;
    let source = joining::Watched { inner: control.inspect(), chain: chain.clone() };
    let admin = admin::serve(listeners, Arc::new(source), &metrics)?;
    let published = control.published();
    telemetry::spawn("control", control.run(Inputs { changes, requests, reports, listening }));
    tracing::info!(node = run.node_name, version = env!("CARGO_PKG_VERSION"), "the daemon has started");

    tokio::select! {
        served = serve_cni(&run, published, asked, (open, chain.as_ref(), api.as_ref())) => served?,
        () = signals.told() => {}
    }
    // From now on the next daemon answers at the address.
    admin.abort();
    if let Some(keeper) = keeper {
        keeper.finish().await;
    }
    let ending = match &own {
        Some(own) => own.ending().await,
        None => Ending::Restart,
    };
    if let (Ending::Uninstall, Some(chain)) = (ending, &chain) {
        log("take the plugin out of the chain", chain.remove().await);
    }
    if let Some(chain) = &chain {
        chain.let_go();
    }
    stop(&run, (&feed, &proxy, &steerer), ending, signals).await;
    if !access.flush(FLUSH) {
        tracing::warn!("the last access records could not be written in time");
    }
    if !tracer.flush(FLUSH).await {
        tracing::warn!("the last spans could not be exported in time");
    }
    Ok(())
}

/// Where users hear of their pods: in Events, if there is an API server.
fn notices(run: &Run, api: Option<&::kube::Client>, metrics: &Metrics) -> Notices {
    let Some(api) = api else { return Notices::nowhere() };
    let (notices, recording) = Notices::new(metrics);
    telemetry::spawn("events", recording.run(api.clone(), run.node_name.clone()));
    notices
}

/// Has users told of what is denied at their pods.
fn tell_denied(notices: Notices) -> TellDenied {
    Arc::new(move |denied| {
        let uid = match denied.at {
            At::Pod(pod) => &*pod.uid,
            At::Gateway(gateway) => &*gateway.uid,
        };
        // An Event without a UID belongs to nobody.
        if uid.is_empty() {
            return;
        }
        notices.tell_denied(uid, (denied.policy, denied.rule), || {
            let about = match denied.at {
                At::Pod(pod) => About::pod(&pod.name, uid),
                At::Gateway(GatewayRef { object, .. }) => {
                    let istio = CustomKind::IstioGateway;
                    let kind = if object.kind == istio.full_name() { istio } else { CustomKind::Gateway };
                    About::custom(kind, &object.name, uid)
                }
            };
            let (rule, policy) = (denied.rule.to_owned(), denied.policy.cloned());
            Notice { about, what: What::Denied(Denial { rule, policy, note: denied.note() }) }
        });
    })
}

/// Who tells the other nodes of this node's pods, if there is an API server, and in the name of which installation.
fn announcer(
    run: &Run,
    api: Option<&::kube::Client>,
    metrics: &Metrics,
) -> Result<(Announcer, Option<Arc<str>>), AppError> {
    let Some(api) = api else { return Ok((Announcer::nowhere(), None)) };
    let installation: Arc<str> = cluster::installation(run.cluster.kubeconfig.as_deref())?.into();
    Ok((Announcer::new(api.clone(), Arc::clone(&installation), metrics), Some(installation)))
}

/// Opens what the admin server listens at.
fn listen(settings: &config::Admin) -> Result<admin::Listeners, AdminError> {
    let mut listeners = admin::listen(settings.admin_addr)?;
    if let Some(path) = &settings.admin_socket {
        listeners = listeners.and_socket(path)?;
    }
    if let Some(address) = settings.metrics_addr {
        listeners = listeners.and_metrics(address)?;
    }
    Ok(listeners)
}

/// Takes the mesh out of this node, in the order in which no pod is harmed: new pods no longer come, then those that are there
/// get their namespaces back.
async fn uninstall(settings: &Uninstall) -> Result<(), AppError> {
    let metrics = Metrics::default();
    let config = joining::chain_config(&settings.chain, &settings.state_dir, Path::new(DEFAULT_SOCKET));
    let chain = Chain::start(config, &metrics)?;
    chain.remove().await?;
    chain.let_go();
    println!("the plugin is in no chain any more; its program stays, so that pods that it added can be deleted");
    let steering = steer::Config {
        host: steer::Host::default(),
        bpf_dir: settings.bpf_dir.clone(),
        state_dir: settings.state_dir.join("steer"),
        cgroup: None,
        mode: steer::Mode::Auto,
        excluded_outbound_ports: Vec::new(),
        excluded_inbound_ports: Vec::new(),
        excluded_prefixes: Vec::new(),
    };
    Steering::start(steering, &metrics)?.uninstall()?;
    println!("pods have their network namespaces back, and the kernel holds nothing of the mesh");
    println!(
        "if other nodes keep the mesh: kubectl annotate pods -A --field-selector spec.nodeName=NODE {ANNOUNCEMENT}-"
    );
    Ok(())
}

/// Where the users' objects are.
enum Origin {
    Directory(std::path::PathBuf),
    Cluster(::kube::Client),
}

impl Origin {
    async fn of(run: &Run) -> Result<Self, AppError> {
        match &run.objects {
            Some(directory) => Ok(Self::Directory(directory.clone())),
            None => Ok(Self::Cluster(cluster::client(run.cluster.kubeconfig.as_deref()).await?)),
        }
    }

    fn client(&self) -> Option<::kube::Client> {
        if let Self::Cluster(client) = self { Some(client.clone()) } else { None }
    }
}

/// Where the users' objects come from.
enum Objects {
    /// A directory, watched until this is dropped.
    Files { _watching: file::Watching },
    /// The API server.
    Cluster,
}

impl Objects {
    fn watch(run: &Run, origin: Origin, changed: mpsc::Sender<Change>, metrics: &Metrics) -> Result<Self, AppError> {
        match origin {
            Origin::Directory(directory) => {
                Ok(Self::Files { _watching: file::watch(file::Config::new(&directory), changed)? })
            }
            Origin::Cluster(client) => {
                let secrets = run.edge.certificates.iter().cloned().collect();
                let config =
                    kube::Config { secrets, ..kube::Config::new(client, run.node_name.as_str(), saved_world(run)) };
                let _source_in_sync = kube::watch(config, changed, metrics);
                Ok(Self::Cluster)
            }
        }
    }

    /// Keeps on disk what only the API server knows.
    fn keep(&self, run: &Run, control: &Control) -> Option<Keeper> {
        let Self::Cluster = self else { return None };
        let (stop, stopping) = oneshot::channel();
        // What the source has told may still be on its way to the loop: a world that lacks it must not be saved.
        let (world, revisions, in_sync) = (control.world_in_use(), control.revisions(), control.in_sync());
        let keeping = kube::keep_saved(saved_world(run), world, revisions, in_sync, stopping);
        Some(Keeper { stop, keeping: telemetry::spawn("world keeper", keeping) })
    }
}

/// Keeps the world on disk.
struct Keeper {
    stop: oneshot::Sender<()>,
    keeping: JoinHandle<()>,
}

impl Keeper {
    /// Saves what changed last, so that the next daemon knows it even if the API server is away.
    async fn finish(self) {
        drop(self.stop);
        if tokio::time::timeout(FLUSH, self.keeping).await.is_err() {
            tracing::warn!("the last changes of the users' objects could not be saved in time");
        }
    }
}

fn saved_world(run: &Run) -> std::path::PathBuf {
    run.state_dir.join("world")
}

/// Answers the CNI plugin once the daemon knows the users' objects.
async fn serve_cni(
    run: &Run,
    mut published: tokio::sync::watch::Receiver<bool>,
    asked: mpsc::UnboundedSender<Asked>,
    (open, chain, api): (oneshot::Sender<()>, Option<&Chain>, Option<&::kube::Client>),
) -> Result<(), AppError> {
    if published.wait_for(|published| *published).await.is_err() {
        // The loop has ended: the daemon is about to stop.
        return Ok(());
    }
    let listener = cni::bind(&run.cni_socket)?;
    // The loop ends only with the daemon.
    let _loop_ended = open.send(());
    let respond: cni::Respond = Arc::new(move |request| {
        let (answer, answered) = oneshot::channel();
        let sent = asked.send(Asked { request, answer });
        Box::pin(async move {
            let stopping = || Response::Error { retriable: true, message: "the daemon is stopping".to_owned() };
            if sent.is_err() {
                return stopping();
            }
            answered.await.unwrap_or_else(|_| stopping())
        })
    });
    // An entry without somebody who answers would fail every pod.
    let joined = async {
        if let Some(chain) = chain {
            joining::install(chain, run, api).await?;
        }
        std::future::pending::<Result<(), AppError>>().await
    };
    tokio::select! {
        () = cni::serve(listener, respond) => Ok(()),
        failed = joined => failed,
    }
}

/// Lets open connections end. What is in the kernel stays for the next daemon, or goes if the mesh does.
async fn stop(run: &Run, (feed, proxy, steerer): (&Feed, &Proxy, &Steerer), ending: Ending, mut signals: Signals) {
    if ending == Ending::Uninstall {
        tokio::select! {
            () = part(feed) => {}
            () = signals.told() => tracing::warn!("told to stop again: other nodes may not have heard"),
        }
    }
    let patience = run.traffic.drain_deadline;
    tracing::info!(?ending, seconds = patience.as_secs(), "stopping: open connections may go on until the deadline");
    match ending {
        Ending::Restart => steerer.let_go(),
        Ending::Uninstall => steerer.leave_all(),
    }
    tokio::select! {
        () = proxy.drain(Instant::now() + patience) => tracing::info!("the last connection has ended"),
        () = signals.told() => tracing::warn!("told to stop again: open connections are cut"),
    }
    if ending == Ending::Uninstall {
        log("take the mesh out of the kernel", steerer.uninstall().await);
    }
}

/// Leaves the mesh step by step, for the other nodes do so a little sooner or later.
async fn part(feed: &Feed) {
    tracing::info!("the mesh is uninstalled: pods take plain text, then speak it, then take nothing else");
    for stage in [Departure::TakingBoth, Departure::SpeakingPlain] {
        feed.depart(stage);
        tokio::time::sleep(HEARD).await;
    }
}

fn log(attempt: &str, result: Result<(), impl std::error::Error>) {
    if let Err(error) = result {
        tracing::error!("cannot {attempt}: {}", telemetry::explain(&error));
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn steer_config(run: &Run) -> steer::Config {
    steer::Config {
        host: steer::Host { settings: run.sysctl_dir.clone(), may_mount: run.mount_bpf },
        bpf_dir: run.bpf_dir.clone(),
        state_dir: run.state_dir.join("steer"),
        cgroup: run.capture.cgroup.clone(),
        mode: run.capture.capture.into(),
        excluded_outbound_ports: run.capture.exclude_outbound_ports.clone(),
        excluded_inbound_ports: run.capture.exclude_inbound_ports.clone(),
        excluded_prefixes: run.capture.exclude_prefixes.clone(),
    }
}

fn trace_settings(run: &Run) -> trace::Settings {
    trace::Settings {
        endpoint: run.tracing.otlp_endpoint.clone(),
        sampling: run.tracing.trace_sampling,
        node: run.node_name.clone(),
        cluster: run.cluster_name.clone(),
    }
}

fn node_settings(run: &Run) -> Result<compile::Settings, AppError> {
    let namespace = run.cluster.namespace.as_str();
    let edge = Identity::new(&run.ca.trust_domain.as_str().into(), namespace, run.edge.service_account.as_str())?;
    Ok(compile::Settings {
        node: run.node_name.clone(),
        cluster_domain: run.cluster_domain.clone(),
        root_namespace: run.root_namespace.clone(),
        edge: Arc::new(edge),
        edge_labels: run.edge.labels.iter().cloned().collect(),
    })
}

fn proxy_config(run: &Run, descriptors: u64, node: &compile::Settings) -> proxy::Config {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // Each connection has two ends.
    let connections = descriptors.saturating_sub(SPARE_DESCRIPTORS) / 2;
    proxy::Config {
        workers: run.traffic.workers.unwrap_or_else(|| processors.min(MAX_WORKERS)),
        connect_timeout: run.traffic.connect_timeout,
        handshake_timeout: run.traffic.handshake_timeout,
        handshakes_per_source: run.traffic.handshakes_per_source,
        outside_roots: run.traffic.outside_roots.clone(),
        connections_per_pod: run.traffic.connections_per_pod.unwrap_or(connections / 4 * 3),
        edge: proxy::EdgeConfig {
            workload: Arc::new(compile::edge_workload(node)),
            connections: run.edge.connections,
            idle_timeout: run.edge.idle_timeout,
            upgraded_idle_timeout: run.edge.upgraded_idle_timeout,
        },
    }
}
