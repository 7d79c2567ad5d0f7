//! The parts of a host that run jobs, in the process of the test, so that it can choose the store.

use super::{Setup, plugin};
use hostler::app;
use hostler::error::Result;
use hostler::jobs::{Item, JobStore, Jobs, JobsConfig, RequestedBudgets, Submitted, Submitter};
use hostler::metrics::Metrics;
use hostler::policy::Reloader;
use hostler::policy::files::Files;
use hostler::policy::reload::FirstPlan;
use hostler::predict::{JsonText, Parameter, Parameters, Payload, Priority};
use hostler::router::{Authority, Router};
use hostler::server::InferenceEncoder;
use std::sync::Arc;

/// A host with jobs and the model `hostile`, built as the host builds it, without listeners.
pub struct InProcess {
    pub jobs: Arc<Jobs>,
    pub router: Arc<Router>,
    pub metrics: Arc<Metrics>,
    pub runtime: tokio::runtime::Runtime,
    _reloader: Reloader,
    _setup: Setup,
}

impl InProcess {
    /// `keys` are those of `[jobs]`, and further tables.
    pub fn new(keys: &str, store: Arc<dyn JobStore>) -> Self {
        InProcess::with_files(keys, &[], store)
    }

    /// `files` are names and texts of files beside the manifest.
    pub fn with_files(keys: &str, files: &[(&str, &str)], store: Arc<dyn JobStore>) -> Self {
        let manifest = format!(
            "[models.hostile]\nplugin = \"hostile\"\n[plugins.hostile]\npath = \"hostile.wasm\"\n[jobs]\n{keys}\n"
        );
        let setup = Setup::new(&manifest).file("hostile.wasm", plugin("hostile"));
        let setup = files.iter().fold(setup, |setup, (name, text)| setup.text(name, text));
        let (path, files) = (setup.path("hostler.toml"), Files::default());
        let first = FirstPlan::read(&path, &files, None).map_err(app::unplanned).unwrap();
        let settings = first.plan.settings.clone();
        let (runtime, metrics) = (app::runtime(&settings).unwrap(), Arc::new(Metrics::new()));
        let loader = app::loader(&settings, &metrics, runtime.handle(), None).unwrap();
        let reloader = Reloader::start(path, files, first, loader, None).unwrap();
        let router =
            Arc::new(Router::new(reloader.live(), Arc::clone(&metrics), false, settings.limits, None));
        let jobs = Jobs::start(JobsConfig {
            store,
            router: Arc::clone(&router),
            metrics: Arc::clone(&metrics),
            runtime: runtime.handle().clone(),
            status_of: |_| 500,
            encoder: Arc::new(InferenceEncoder),
        });
        InProcess { jobs, router, metrics, runtime, _reloader: reloader, _setup: setup }
    }

    /// Submits a job for the plugin that echoes its input.
    pub fn submit(&self, parameters: Parameters, webhook: Option<&str>) -> Result<Arc<str>> {
        let mut request = self.router.begin("request".into(), "test", Authority::host(), &|_| None);
        let route = request.resolve("hostile", None, &|_| None).unwrap();
        let input = Payload::Json(JsonText::parse("[\"a\"]".into()).unwrap());
        let item = Item::checked(&route, &input, parameters, self.router.budget()).unwrap();
        let (budgets, id) = (RequestedBudgets::default(), Arc::clone(request.id()));
        request.withdraw();
        let (owner, tenant, priority) = (Arc::default(), Arc::default(), Priority::default());
        let submitted = self.jobs.submit_background(
            &route.name,
            vec![item],
            budgets,
            webhook,
            Submitter { request_id: &id, owner: &owner, tenant: &tenant, priority },
            None,
        );
        self.runtime.block_on(submitted).map(|submitted| match submitted {
            Submitted::New(jobs) => Arc::clone(&jobs[0].id),
            Submitted::Existing(ids) => panic!("nobody has submitted {ids:?}"),
        })
    }
}

/// Returns parameters that make the plugin sleep.
pub fn sleep(ms: i64) -> Parameters {
    let text = |text: &str| Parameter::Text(text.to_owned());
    let sleep = [("do", text("sleep")), ("ms", Parameter::Integer(ms)), ("at", text("predict"))];
    sleep.map(|(name, value)| (name.to_owned(), value)).to_vec()
}
