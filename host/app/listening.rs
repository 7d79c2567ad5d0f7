//! The listeners of the host: bound before anything is loaded, and served from then on, or only
//! when everything is loaded.

use crate::access::Access;
use crate::audit::AuditLog;
use crate::config::descriptors::DescriptorPlan;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::policy::settings::Settings;
use crate::policy::tls_settings::{ListenerTls, TlsSettings};
use crate::server::admin::Admin;
use crate::server::callers::Callers;
use crate::server::grpc::{Grpc, GrpcCalls};
use crate::server::plain::Public;
use crate::server::tls::{self, Certificates};
use crate::server::{
    Auditor, BoundAddresses, Capacity, ListenerOptions, Pool, Protocol, Starting, Transfers,
};
use crate::shutdown::Readiness;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The addresses of all listeners, which belong to this process.
pub(super) struct Bound {
    http: BoundAddresses,
    grpc: Option<BoundAddresses>,
    admin: BoundAddresses,
}

impl Bound {
    pub fn bind(settings: &Settings) -> Result<Self> {
        let grpc = settings.grpc.as_ref().map(|address| BoundAddresses::bind("grpc", address));
        Ok(Bound {
            http: BoundAddresses::bind("http", &settings.http)?,
            grpc: grpc.transpose()?,
            admin: BoundAddresses::bind("admin", &settings.admin)?,
        })
    }

    pub fn addresses(&self) -> Addresses {
        let all = |bound: &BoundAddresses| bound.addresses().to_vec();
        Addresses {
            http: all(&self.http),
            grpc: self.grpc.as_ref().map(all).unwrap_or_default(),
            admin: all(&self.admin),
        }
    }
}

/// Where the host listens. There are several addresses where a name has several.
pub(super) struct Addresses {
    pub http: Vec<SocketAddr>,
    /// Empty if there is no such listener.
    pub grpc: Vec<SocketAddr>,
    pub admin: Vec<SocketAddr>,
}

impl fmt::Display for Addresses {
    /// Writes ` http=ADDRESS` and so on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, addresses) in [("http", &self.http), ("grpc", &self.grpc), ("admin", &self.admin)] {
            addresses.iter().try_for_each(|address| write!(f, " {name}={address}"))?;
        }
        Ok(())
    }
}

/// What the listeners serve: health checks at first, and everything once it is loaded.
pub(super) struct Services {
    pub public: Arc<Starting<Public>>,
    pub operator: Arc<Starting<Admin>>,
    pub grpc: Arc<Grpc>,
    pub readiness: Arc<Readiness>,
    pub transfers: Arc<Transfers>,
    grpc_calls: Arc<GrpcCalls>,
    certificates: ListenerCertificates,
    /// `None` without access rules.
    pub access: Option<Arc<Access>>,
    /// `None` without an audit log.
    pub audit: Option<Arc<AuditLog>>,
    metrics: Arc<Metrics>,
    stop_public: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
}

impl Services {
    /// Must be called in the runtime that serves the connections.
    ///
    /// # Errors
    /// `invalid_input` if the files of TLS cannot be used.
    pub fn new(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Self> {
        let (stop_public, stopped) = watch::channel(false);
        let (stop_admin, _) = watch::channel(false);
        let readiness = Arc::new(Readiness::default());
        let transfers = Transfers::new(settings.limits, Arc::clone(metrics));
        let access = access(settings, metrics)?;
        let audit = settings.audit_log.as_deref().map(AuditLog::open).transpose()?.map(Arc::new);
        let grpc = Grpc::new(
            Arc::clone(&readiness),
            Arc::clone(&transfers),
            stopped,
            Callers::new(access.clone(), settings.tenant_header.as_ref(), &settings.proxies),
            Auditor::new(audit.clone(), &settings.proxies),
        );
        // Until everything is loaded, nobody can show who they are.
        let open_metrics = access.is_none().then(|| Arc::clone(metrics));
        let grpc_calls = Arc::new(GrpcCalls::new(&grpc)?);
        Ok(Services {
            public: Starting::new(open_metrics.clone(), Some(Arc::clone(&grpc_calls))),
            operator: Starting::new(open_metrics, None),
            grpc,
            readiness,
            transfers,
            grpc_calls,
            certificates: ListenerCertificates::load(settings, metrics)?,
            access,
            audit,
            metrics: Arc::clone(metrics),
            stop_public,
            stop_admin,
        })
    }

    /// Begins to serve. Must be called in the runtime that serves the connections.
    pub fn listen(&self, bound: Bound, settings: &Settings) -> Result<Listening> {
        let Bound { http, grpc, admin } = bound;
        let limits = settings.limits;
        let plan = self.divide_descriptors(1 + usize::from(grpc.is_some()), limits.max_connections);
        let options = |capacity, transfers, certificates: &Option<Arc<Certificates>>| {
            let (metrics, certificates) = (Arc::clone(&self.metrics), certificates.clone());
            ListenerOptions { limits, capacity, transfers, metrics, certificates }
        };
        let capacity = Capacity {
            connections: limits.max_connections,
            pool: Pool::new(plan.public),
            probes: plan.probes,
            for_operators: false,
        };
        let tls = &self.certificates;
        let public_options = |tls| options(capacity.clone(), Some(Arc::clone(&self.transfers)), tls);
        let of_admin =
            Capacity { connections: plan.admin, pool: Pool::new(plan.admin), probes: 0, for_operators: true };
        let admin_options = options(of_admin, None, &tls.admin);
        let serve_grpc = |bound: BoundAddresses| {
            let (calls, stop) = (Arc::clone(&self.grpc_calls), self.stop_public.subscribe());
            let serve = bound.listen()?.serve(calls, public_options(&tls.grpc), stop);
            Ok::<_, crate::error::Error>(tokio::spawn(serve))
        };
        let grpc = grpc.map(serve_grpc).transpose()?;
        let (http, admin) = (http.listen()?, admin.listen()?);
        let (public, stop) = (Arc::clone(&self.public), self.stop_public.subscribe());
        let http = tokio::spawn(http.serve(public, public_options(&tls.http), stop));
        let (operator, stop) = (Arc::clone(&self.operator), self.stop_admin.subscribe());
        let admin = tokio::spawn(admin.serve(operator, admin_options, stop));
        Ok(Listening { http, grpc, admin })
    }

    /// Ends the public listeners once their requests are answered.
    pub fn stop_public(&self) {
        self.stop_public.send_replace(true);
    }

    pub fn stop_admin(&self) {
        self.stop_admin.send_replace(true);
    }

    /// Determines how many connections fit below the limit of open files.
    fn divide_descriptors(&self, public_listeners: usize, wanted: usize) -> DescriptorPlan {
        let plan = DescriptorPlan::new(public_listeners, wanted);
        self.metrics.connections.max.set(i64::try_from(plan.public).unwrap_or(i64::MAX));
        if plan.fits {
            tracing::debug!(open_files_max = plan.limit, connections = plan.public, "descriptors divided");
        } else {
            tracing::warn!(
                open_files_max = plan.limit,
                connections = plan.public,
                max_connections = wanted,
                listeners = public_listeners,
                "max_connections does not fit into the limit of open files; raise the hard limit (ulimit -Hn, \
                 LimitNOFILE) or lower max_connections"
            );
        }
        plan
    }
}

/// Reads the access rules, and starts the thread that reads them again.
fn access(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Option<Arc<Access>>> {
    let Some(path) = &settings.access_rules else { return Ok(None) };
    let (access, digest) = Access::load(path, metrics);
    crate::access::watch(&access, digest)?;
    Ok(Some(access))
}

/// What the listeners with TLS use.
struct ListenerCertificates {
    http: Option<Arc<Certificates>>,
    grpc: Option<Arc<Certificates>>,
    admin: Option<Arc<Certificates>>,
}

impl ListenerCertificates {
    /// Reads the files, and starts the thread that reads them again.
    fn load(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Self> {
        let TlsSettings { http, grpc, admin } = &settings.tls;
        let mut watched = Vec::new();
        let mut load = |name, tls: &Option<ListenerTls>, alpn| {
            let Some(tls) = tls else { return Ok(None) };
            let (certificates, digest) = Certificates::load(name, tls.clone(), alpn, metrics)?;
            watched.push((Arc::clone(&certificates), digest));
            Ok::<_, crate::error::Error>(Some(certificates))
        };
        let grpc = grpc.as_ref().filter(|_| settings.grpc.is_some()).cloned();
        let loaded = ListenerCertificates {
            http: load("http", http, <Starting<Public> as Protocol>::ALPN)?,
            grpc: load("grpc", &grpc, <GrpcCalls as Protocol>::ALPN)?,
            admin: load("admin", admin, <Starting<Admin> as Protocol>::ALPN)?,
        };
        tls::watch(&watched)?;
        Ok(loaded)
    }
}

/// The tasks of the listeners.
pub(super) struct Listening {
    http: JoinHandle<()>,
    grpc: Option<JoinHandle<()>>,
    pub admin: JoinHandle<()>,
}

impl Listening {
    /// Returns once the public listeners have answered their last requests.
    pub async fn public_ended(&mut self) {
        let _ = (&mut self.http).await;
        if let Some(grpc) = &mut self.grpc {
            let _ = grpc.await;
        }
    }
}
