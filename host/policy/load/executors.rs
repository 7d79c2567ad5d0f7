//! Starts the executors of a plan, or takes them from an earlier policy.

use super::loaded_parts::{ExecutorKey, LoadedParts};
use super::loader::Loader;
use crate::error::{Error, Result};
use crate::executor::{
    CustomExecutor, Executor, PipelineExecutor, PoolConfig, PoolExecutor, PoolKind, SessionConfig, TlsFiles,
    TritonExecutor,
};
use crate::policy::content::PolicyContent;
use crate::policy::files::{File, Files};
use crate::policy::plan::{ExecutorKind, ExecutorPlan, Plan, TlsPlan};
use bytes::Bytes;
use std::sync::Arc;

impl Loader {
    /// Returns the executor of this name. Starts it, and the executors behind it, if no earlier
    /// policy has the same.
    pub(super) fn executor(
        &self,
        name: &Arc<str>,
        plan: &Plan,
        files: &Files,
        parts: &mut LoadedParts,
        reuse: &[Arc<PolicyContent>],
    ) -> Result<Arc<dyn Executor>> {
        let key = ExecutorKey::of(plan, name);
        let known =
            parts.executors.get(&key).or_else(|| reuse.iter().find_map(|old| old.parts.executors.get(&key)));
        let executor = match (known, &key.plan) {
            (Some(executor), _) => Arc::clone(executor),
            (None, ExecutorPlan::Pool { kind, pool, sessions }) => {
                self.start_pool(name, *kind, *pool, *sessions)?
            }
            (None, ExecutorPlan::Triton { config, tls }) => {
                let tls = tls.as_ref().map(|tls| tls_files(tls, files)).transpose();
                let tls = tls.map_err(|error| error.context(format!("executor \"{name}\": tls")))?;
                Arc::new(TritonExecutor::start(name, config.clone(), tls, &self.metrics)?)
            }
            (None, ExecutorPlan::Pipeline { pool }) => {
                Arc::new(PipelineExecutor::start(name, *pool, &self.metrics))
            }
            (None, ExecutorPlan::Custom { config, plugin, inner }) => {
                let inner = self.executor(inner, plan, files, parts, reuse)?;
                let loaded = &parts.plugins[&(Arc::clone(plugin), plan.plugins[plugin].clone())];
                let plugin = loaded.executor.clone().expect("invariant: the plan wants this role");
                Arc::new(CustomExecutor::start(name, *config, plugin, inner, &self.metrics)?)
            }
        };
        parts.executors.insert(key, Arc::clone(&executor));
        Ok(executor)
    }

    fn start_pool(
        &self,
        name: &str,
        kind: ExecutorKind,
        pool: PoolConfig,
        sessions: SessionConfig,
    ) -> Result<Arc<dyn Executor>> {
        let (library, runtime, metrics) = (self.library.clone(), &self.runtime, &self.metrics);
        Ok(match kind {
            ExecutorKind::Onnx => Arc::new(PoolExecutor::start(
                PoolKind::Onnx,
                name,
                pool,
                sessions,
                library,
                runtime,
                metrics,
            )?),
            _ => Arc::new(PoolExecutor::start(
                PoolKind::ThreadPool,
                name,
                pool,
                sessions,
                library,
                runtime,
                metrics,
            )?),
        })
    }
}

fn tls_files(plan: &TlsPlan, files: &Files) -> Result<TlsFiles> {
    const CERTIFICATE: &str = "CERTIFICATE-----";
    let identity = match &plan.identity {
        Some((certificate, key)) => {
            Some((pem(certificate, CERTIFICATE, files)?, pem(key, "PRIVATE KEY-----", files)?))
        }
        None => None,
    };
    let ca = plan.ca.as_ref().map(|ca| pem(ca, CERTIFICATE, files)).transpose()?;
    Ok(TlsFiles { ca, identity, domain: plan.domain.clone() })
}

/// Reads a file in PEM and requires such a section. Without the section TLS would find nothing, and
/// blame the remote.
fn pem(file: &File, section: &str, files: &Files) -> Result<Bytes> {
    let content = files.read(file)?;
    if content.windows(section.len()).any(|part| part == section.as_bytes()) {
        return Ok(content);
    }
    let (path, section) = (file.path.display(), section.trim_end_matches('-').to_lowercase());
    Err(Error::invalid(format!("{path} has no {section} in PEM")))
}
