//! Where calls are that hold no worker, because their model waits by itself in an instance of its own. Each is
//! bounded by its model; here they are known by name. A transformer around such a model runs on threads of the
//! room, where guests take turns.

use super::pool::{STREAM_BUFFER, WORKER_NICE};
use super::{Call, Sink};
use crate::error::{Error, Result};
use crate::plugin::{Permit, share_this_thread};
use crate::predict::{Context, Payload, Responses, channel};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Threads for the transformers of all calls; a transformer that computes keeps others waiting for a tick.
const THREADS: usize = 2;

pub(super) struct Room {
    name: Arc<str>,
    places: Arc<Places>,
    /// Started with the first call that has a transformer.
    runtime: OnceLock<Background>,
}

struct Background(Option<tokio::runtime::Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Default)]
struct Places(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    next: u64,
    calls: HashMap<u64, Arc<Context>>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call is here for as long as this lives.
struct Place {
    places: Arc<Places>,
    key: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().calls.remove(&self.key);
    }
}

impl Room {
    pub fn new(name: &str) -> Self {
        Room { name: name.into(), places: Arc::default(), runtime: OnceLock::new() }
    }

    /// Begins a call whose model is shared, or refuses it, at once.
    pub fn submit(&self, call: Call) -> Result<Responses> {
        let permit = permit(&call)?;
        self.start(call, permit)
    }

    /// Begins all of them, or none.
    pub fn submit_batch(&self, calls: Vec<Call>) -> Result<Vec<Responses>> {
        let permits = calls.iter().map(permit).collect::<Result<Vec<_>>>()?;
        calls.into_iter().zip(permits).map(|(call, permit)| self.start(call, permit)).collect()
    }

    fn start(&self, call: Call, permit: Permit) -> Result<Responses> {
        let context = Arc::clone(&call.context);
        let (sender, responses) = channel(Arc::clone(&context), STREAM_BUFFER);
        let place = self.take(&context);
        if call.transformer.is_none() {
            let Payload::Tensors(inputs) = call.input else {
                return Err(Error::invalid("this model has no transformer, so it takes tensors only"));
            };
            let model = call.callable.shared().expect("invariant: its permit came from there");
            model.start(permit, &context, inputs, sender, Box::new(place));
            return Ok(responses);
        }
        let admitted = Instant::now();
        self.runtime()?.spawn(async move {
            let mut sink = Sink::new(sender, &call, admitted.elapsed());
            let Call { context, input, callable, .. } = call;
            let outcome = async {
                let inputs = sink.preprocess(input, &*callable).await?;
                let model = callable.shared().expect("invariant: its permit came from there");
                match model.run(permit, &context, inputs, &mut sink).await? {
                    Some(outputs) => sink.respond(outputs).await.map(Some),
                    None => Ok(None),
                }
            };
            let last = outcome.await;
            drop(place);
            sink.finish(last);
        });
        Ok(responses)
    }

    fn take(&self, context: &Arc<Context>) -> Place {
        let mut taken = self.places.lock();
        let key = taken.next;
        taken.next += 1;
        taken.calls.insert(key, Arc::clone(context));
        drop(taken);
        Place { places: Arc::clone(&self.places), key }
    }

    fn runtime(&self) -> Result<&tokio::runtime::Runtime> {
        let failed = |error: std::io::Error| {
            Error::failed(format!("executor \"{}\": cannot start threads: {error}", self.name))
        };
        if self.runtime.get().is_none() {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(THREADS)
                .thread_name(format!("{}-room", self.name))
                .on_thread_start(|| {
                    crate::config::lower_priority(WORKER_NICE);
                    share_this_thread();
                })
                .enable_time()
                .build()
                .map_err(failed)?;
            // Made twice at worst, by two first calls at once; one of them stays.
            let _ = self.runtime.set(Background(Some(runtime)));
        }
        let runtime = self.runtime.get().and_then(|background| background.0.as_ref());
        Ok(runtime.expect("invariant: just set, and taken on drop only"))
    }

    /// Calls that are here now.
    pub fn in_flight(&self) -> usize {
        self.places.lock().calls.len()
    }

    pub fn running(&self) -> Vec<String> {
        self.places.lock().calls.values().map(|context| context.id.to_string()).collect()
    }
}

fn permit(call: &Call) -> Result<Permit> {
    call.callable.shared().expect("invariant: only calls of shared models come here").admit()
}
