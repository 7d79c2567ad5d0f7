//! The commands that do not serve: check, diff, predict, wit.

use crate::app;
use crate::cancel::Cancel;
use crate::config::{EngineConfig, ListenAddress, PluginLimits};
use crate::error::{Error, Result};
use crate::graph;
use crate::input_file::{self, FileKind, FileLimits, Progress};
use crate::metrics::Metrics;
use crate::output;
use crate::plugin::{CONTRACT_VERSION, Engine, Plugin, Role};
use crate::policy::files::{Files, hex_digest};
use crate::policy::plan::{ModelName, Plan};
use crate::policy::{Description, Loader, PolicyContent, RouteQuery};
use crate::predict::{StepLog, StepRecord};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// `hostler check FILE`
pub fn check(file: &Path, resolve: Option<&str>, picture: Option<Picture>, quick: bool) -> Result<bool> {
    if file.extension().is_some_and(|extension| extension == "wasm") {
        return check_plugin(file);
    }
    let files = Files::default();
    let plan = Plan::read(&app::absolute(file)?, &files).map_err(app::unplanned)?;
    if let Some(model) = resolve {
        output::print_text(describe_route(&plan, model)?);
    }
    for pipeline in plan.pipelines.values() {
        let graph = &pipeline.graph;
        let mut text = match picture {
            None => graph::text(graph),
            Some(Picture::Mermaid) => graph::mermaid(graph),
            Some(Picture::Dot) => graph::dot(graph),
        };
        text.push('\n');
        output::print_text(text);
    }
    plan.unused_by_steps().iter().for_each(output::print);
    if picture.is_some() && !quick {
        drop(Loaded::new(plan, &files)?);
        return Ok(true);
    }
    let summary =
        format!("{} models, {} plugins, digest {}", plan.models.len(), plan.plugins.len(), plan.digest);
    if !quick {
        let loaded = Loaded::new(plan, &files)?;
        drop(loaded);
    }
    output::print(format_args!("{}: ok ({summary})", file.display()));
    Ok(true)
}

/// How the graphs of pipelines are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    Mermaid,
    Dot,
}

/// A manifest that was loaded and checked, without listeners.
struct Loaded {
    content: Arc<PolicyContent>,
    runtime: tokio::runtime::Runtime,
}

impl Loaded {
    fn new(plan: Plan, files: &Files) -> Result<Self> {
        let runtime = app::runtime(&plan.settings)?;
        let loader: Loader = app::loader(&plan.settings, &Arc::new(Metrics::new()), runtime.handle())?;
        let content = loader.load(plan, files, &[], &mut Default::default())?;
        Ok(Loaded { content, runtime })
    }
}

fn describe_route(plan: &Plan, model: &str) -> Result<String> {
    let (name, version) = match model.split_once(':') {
        Some((name, version)) => (name, Some(version)),
        None => (model, None),
    };
    let line = |name: &ModelName| {
        let model = &plan.models[name];
        let transformer = model.transformer.as_ref().map(|plugin| format!(", transformer {plugin}"));
        let line = format!("{name} -> executor {}{}", model.executor, transformer.unwrap_or_default());
        output::one_line(&line).into_owned() + "\n"
    };
    let versions: Vec<&ModelName> = plan.models.keys().filter(|known| *known.name == *name).collect();
    let wanted = versions.iter().find(|known| version == Some(&known.version));
    match (wanted, version, plan.routing.get(name)) {
        (Some(known), ..) => Ok(line(known)),
        (None, None, Some(routing)) => {
            let total: u64 = routing.weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
            let share = |(version, weight): &(Arc<str>, u32)| {
                let known = ModelName { name: name.into(), version: Arc::clone(version) };
                format!("{:5.1} % {}", f64::from(*weight) * 100.0 / total.max(1) as f64, line(&known))
            };
            Ok(routing.weights.iter().map(share).collect())
        }
        (None, None, None) if versions.len() == 1 => Ok(line(versions[0])),
        _ => {
            let known: Vec<String> = plan.models.keys().map(ToString::to_string).collect();
            let hint = crate::error::did_you_mean(model, known.iter().map(String::as_str));
            Err(Error::not_found(format!("no model \"{model}\"{hint}; models: {}", known.join(", "))))
        }
    }
}

/// Prints what a component is, what it imports, and what a fresh instance costs.
fn check_plugin(file: &Path) -> Result<bool> {
    let wasm = input_file::read(file, FileLimits::default().of(FileKind::Plugin), &Progress::default())
        .map_err(|error| error.context(format!("cannot read {}", file.display())))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::failed(format!("cannot start a runtime: {error}")))?;
    // Few instances exist at once, so little address space is enough.
    let engine = Engine::new(EngineConfig { instances: 16, ..EngineConfig::default() });
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let metrics = Metrics::new();
    let limits = PluginLimits { memory_bytes: engine.memory_bytes_max(), ..PluginLimits::default() };
    let spec = engine.plugin_spec(name.into(), limits, &metrics);
    let plugin = Plugin::load(&engine, spec, &wasm, &metrics, &Cancel::default())?;
    let info = plugin.info();
    output::print(format_args!("{}: {} bytes, sha256 {}", file.display(), wasm.len(), hex_digest(&wasm)));
    output::print(format_args!("contract: hostler:plugin@{CONTRACT_VERSION}"));
    if info.roles.is_empty() {
        output::print(format_args!("roles: none; it exports {}", info.exports.join(", ")));
        output::print(format_args!(
            "a plugin exports hostler:plugin/transformer@{CONTRACT_VERSION}, …/model or …/executor,"
        ));
        output::print(format_args!("or hostler:concurrent/streaming-model@{CONTRACT_VERSION}"));
        return Ok(false);
    }
    let roles: Vec<&str> = info.roles.iter().map(|role: &Role| role.as_str()).collect();
    output::print(format_args!("roles: {}", roles.join(", ")));
    output::print("imports:");
    info.imports.iter().for_each(|import| output::print(format_args!("  {import}")));
    // Like loading a manifest: links each role and reads its metadata.
    for role in &info.roles {
        match role {
            Role::Transformer => drop(runtime.block_on(plugin.transformer(&metrics))?),
            Role::Model => drop(runtime.block_on(plugin.model(&metrics))?),
            Role::Executor => drop(plugin.executor(&metrics)?),
            Role::StreamingModel => {
                // An instance of a streaming model is not created for each call, so its cost is not
                // meaningful.
                drop(runtime.block_on(plugin.streaming_model(&metrics))?);
                return Ok(true);
            }
        }
    }
    // The first instances fill the pool. Requests pay the cost of the later ones.
    runtime.block_on(plugin.fresh_instance_cost(10))?;
    let cost = runtime.block_on(plugin.fresh_instance_cost(200))?;
    output::print(format_args!("fresh instance: {:.1} us", cost.as_secs_f64() * 1e6));
    Ok(true)
}

/// `hostler diff FILE`: prints what a reload would change.
pub fn diff(manifest: &Path, admin: Option<ListenAddress>) -> Result<bool> {
    let files = Files::default();
    let plan = Plan::read(&app::absolute(manifest)?, &files).map_err(app::unplanned)?;
    let address = admin.unwrap_or(plan.settings.admin);
    let body = get(&address, "/admin/policy")?;
    #[derive(serde::Deserialize)]
    struct Running {
        generation: u64,
        digest: String,
        description: Description,
    }
    let running: Running = serde_json::from_slice(&body).map_err(|error| {
        Error::unavailable(format!(
            "{address} is not the admin address of a Hostler: {error}; set it with --admin"
        ))
    })?;
    let changes = crate::policy::diff(&running.description, &plan.description);
    output::print(format_args!(
        "running: generation {}, digest {}; {}: digest {}",
        running.generation,
        running.digest,
        manifest.display(),
        plan.digest
    ));
    changes.iter().for_each(|change| output::print(format_args!("  {change}")));
    if changes.is_empty() {
        output::print("  no change");
    }
    Ok(true)
}

/// Sends one GET over HTTP/1.0 to the admin listener. The body ends with the connection.
fn get(address: &ListenAddress, path: &str) -> Result<Vec<u8>> {
    let addresses = address.resolve()?;
    let read = || {
        let connect = |address| std::net::TcpStream::connect_timeout(address, Duration::from_secs(5));
        // The first one that answers, or the error of the first.
        let mut streams = addresses.iter().map(connect);
        let mut stream = streams.find(Result::is_ok).unwrap_or_else(|| connect(&addresses[0]))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = read().map_err(|error: std::io::Error| {
        Error::unavailable(format!(
            "no Hostler answers on {address}: {error}; name its admin address with --admin"
        ))
    })?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |end| end + 4);
    Ok(answer[end..].to_vec())
}

/// `hostler predict REQUEST`: prints the result.
pub fn predict(manifest: &Path, request: &Path, shows_steps: bool) -> Result<bool> {
    let limit = FileLimits::default().of(FileKind::Request);
    let text = if request == Path::new("-") {
        input_file::read_stream(std::io::stdin().lock(), limit)
    } else {
        input_file::read(request, limit, &Progress::default())
    };
    let text = text.map_err(|error| error.context(format!("cannot read {}", request.display())))?;
    // The fields of POST /predict.
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Request {
        model: String,
        version: Option<Version>,
        data: Box<serde_json::value::RawValue>,
        parameters: Option<serde_json::Map<String, serde_json::Value>>,
        timeout_ms: Option<std::num::NonZeroU64>,
    }
    #[derive(serde::Deserialize)]
    #[serde(untagged, expecting = "version must be a string or a whole number")]
    enum Version {
        Text(String),
        Number(u64),
    }
    // Some editors begin a text with a byte order mark.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let request: Request = serde_json::from_slice(text)
        .map_err(|error| Error::invalid(format!("{} is not a request: {error}", request.display())))?;
    let version = request.version.map(|version| match version {
        Version::Text(text) => text,
        Version::Number(number) => number.to_string(),
    });
    let files = Files::default();
    let plan = Plan::read(&app::absolute(manifest)?, &files).map_err(app::unplanned)?;
    let Loaded { content, runtime } = Loaded::new(plan, &files)?;
    let caller = RouteQuery { request_id: "predict", header: &|_| None };
    let route = Arc::clone(content.resolve(&request.model, version.as_deref(), &caller)?);
    let asked_time = request.timeout_ms.map(|ms| Duration::from_millis(ms.get()));
    let limits = &content.plan.settings.limits;
    let timeout = asked_time.into_iter().chain(route.timeout).min().unwrap_or(limits.default_timeout);
    let parameters = request.parameters.unwrap_or_default();
    let steps = shows_steps.then(Arc::<StepLog>::default);
    let result = runtime.block_on(route.sample(
        &content,
        &request.data,
        &parameters,
        timeout.min(limits.max_timeout),
        &Cancel::default(),
        steps.clone(),
    ));
    // Shown before the result is checked: they are most useful if the request failed.
    steps.iter().flat_map(|steps| steps.take()).for_each(|step| show_step(&step));
    output::print_json(String::from_utf8_lossy(&result?));
    Ok(true)
}

/// The most characters of a tensor's values that are shown.
const VALUES_SHOWN: usize = 160;

fn show_step(step: &StepRecord) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let StepRecord { step: name, model, outcome, why, inputs, outputs, time, queue } = step;
    let time = match *outcome {
        "skipped" => String::new(),
        _ => format!(" in {:.2} ms after {:.2} ms in the queue", ms(*time), ms(*queue)),
    };
    let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    output::print(format_args!("step {name} ({model}) {outcome}{time}{why}"));
    for (sign, tensors) in [("<-", inputs), ("->", outputs)] {
        for tensor in tensors {
            let mut values = Vec::new();
            // Values that JSON cannot represent are not shown.
            let _ = crate::predict::encode_tensor(tensor, false, &mut values);
            let values = String::from_utf8_lossy(&values);
            let shown: String = values.chars().take(VALUES_SHOWN).collect();
            let more = if shown.len() < values.len() { "…" } else { "" };
            let (datatype, shape) =
                (tensor.datatype().as_str(), crate::predict::format_shape(tensor.shape()));
            output::print(format_args!("  {sign} {} {datatype}{shape} {shown}{more}", tensor.name()));
        }
    }
}

/// `hostler wit FOLDER`: writes the plugin contract. Does not overwrite files with other content
/// unless `force` is set.
pub fn write_contract(folder: &Path, force: bool) -> Result<bool> {
    const FILES: [(&str, &str); 4] = [
        ("hostler.wit", include_str!("../wit/hostler.wit")),
        ("async/concurrent.wit", include_str!("../wit/async/concurrent.wit")),
        ("deps/logging/logging.wit", include_str!("../wit/deps/logging/logging.wit")),
        ("deps/config/store.wit", include_str!("../wit/deps/config/store.wit")),
    ];
    let mut unwritten = Vec::new();
    for (name, text) in FILES {
        let path = folder.join(name);
        match std::fs::read(&path) {
            Ok(found) if found == text.as_bytes() => {}
            Ok(_) if !force => {
                let path = path.display();
                return Err(Error::invalid(format!(
                    "{path} exists and has other content; nothing was written: name another folder, or overwrite it \
                     with --force"
                )));
            }
            // If the path is not a writable file, the write below reports it.
            _ => unwritten.push(name),
        }
    }
    for (name, text) in FILES {
        let path = folder.join(name);
        if unwritten.contains(&name) {
            let parent = path.parent().expect("invariant: below the folder");
            std::fs::create_dir_all(parent)
                .and_then(|()| std::fs::write(&path, text))
                .map_err(|error| Error::unavailable(format!("cannot write {}: {error}", path.display())))?;
        }
        output::print(path.display());
    }
    Ok(true)
}
