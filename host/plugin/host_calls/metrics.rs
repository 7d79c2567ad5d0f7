//! The interface `metrics`: counters, gauges and histograms that a plugin defines.

use crate::error::{Error, Kind};
use crate::metrics::{Change, Definition, Family, FamilyKind, Refusal};
use crate::plugin::bindings::{metrics, types};
use crate::plugin::resources::{Counter, Gauge, Histogram};
use crate::plugin::store_data::StoreData;
use std::sync::Arc;
use wasmtime::component::Resource;

type Trappable<T> = wasmtime::Result<T>;

type Lowered<T> = Result<T, types::Error>;

fn error(refusal: Refusal) -> Error {
    match refusal {
        Refusal::TooMuch(message) => Error::new(Kind::TooLarge, message),
        Refusal::Wrong(message) => Error::failed(message),
    }
}

impl metrics::Host for StoreData {
    fn count(&mut self, name: String, by: u64) -> wasmtime::Result<()> {
        self.spec.metrics.count(name, by)
    }

    fn set(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        self.spec.metrics.set(name, value)
    }
}

impl StoreData {
    fn create<T: Send + 'static>(
        &mut self,
        name: &str,
        definition: Definition,
        handle: impl FnOnce(Arc<Family>) -> T,
    ) -> Trappable<Lowered<Resource<T>>> {
        Ok(match self.spec.metrics.families().define(name, definition) {
            Ok(family) => Ok(self.handles.table().push(handle(family))?),
            Err(refusal) => Err(self.give_error(error(refusal))),
        })
    }
}

impl StoreData {
    fn change(&mut self, family: &Family, values: Vec<String>, change: Change) -> Trappable<Lowered<()>> {
        let changed = self.spec.metrics.families().change(family, values, change);
        Ok(changed.map_err(|refusal| self.give_error(error(refusal))))
    }
}

impl metrics::HostCounter for StoreData {
    fn create(
        &mut self,
        name: String,
        help: String,
        labels: Vec<String>,
    ) -> Trappable<Lowered<Resource<Counter>>> {
        let definition = Definition { kind: FamilyKind::Counter, help, labels, buckets: Vec::new() };
        StoreData::create(self, &name, definition, Counter)
    }

    fn add(&mut self, counter: Resource<Counter>, values: Vec<String>, by: f64) -> Trappable<Lowered<()>> {
        let family = Arc::clone(&self.handles.other(&counter)?.0);
        self.change(&family, values, Change::Add(by))
    }

    fn drop(&mut self, counter: Resource<Counter>) -> Trappable<()> {
        self.handles.table().delete(counter)?;
        Ok(())
    }
}

impl metrics::HostGauge for StoreData {
    fn create(
        &mut self,
        name: String,
        help: String,
        labels: Vec<String>,
    ) -> Trappable<Lowered<Resource<Gauge>>> {
        let definition = Definition { kind: FamilyKind::Gauge, help, labels, buckets: Vec::new() };
        StoreData::create(self, &name, definition, Gauge)
    }

    fn set(&mut self, gauge: Resource<Gauge>, values: Vec<String>, value: f64) -> Trappable<Lowered<()>> {
        let family = Arc::clone(&self.handles.other(&gauge)?.0);
        self.change(&family, values, Change::Set(value))
    }

    fn add(&mut self, gauge: Resource<Gauge>, values: Vec<String>, by: f64) -> Trappable<Lowered<()>> {
        let family = Arc::clone(&self.handles.other(&gauge)?.0);
        self.change(&family, values, Change::Add(by))
    }

    fn drop(&mut self, gauge: Resource<Gauge>) -> Trappable<()> {
        self.handles.table().delete(gauge)?;
        Ok(())
    }
}

impl metrics::HostHistogram for StoreData {
    fn create(
        &mut self,
        name: String,
        help: String,
        labels: Vec<String>,
        buckets: Vec<f64>,
    ) -> Trappable<Lowered<Resource<Histogram>>> {
        let definition = Definition { kind: FamilyKind::Histogram, help, labels, buckets };
        StoreData::create(self, &name, definition, Histogram)
    }

    fn observe(
        &mut self,
        histogram: Resource<Histogram>,
        values: Vec<String>,
        value: f64,
    ) -> Trappable<Lowered<()>> {
        let family = Arc::clone(&self.handles.other(&histogram)?.0);
        self.change(&family, values, Change::Observe(value))
    }

    fn drop(&mut self, histogram: Resource<Histogram>) -> Trappable<()> {
        self.handles.table().delete(histogram)?;
        Ok(())
    }
}
