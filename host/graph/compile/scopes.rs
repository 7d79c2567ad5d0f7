//! The scopes of the steps: the request, or the items of a stream.

use super::compiler::{Compiler, ROOT};
use crate::graph::condition::TensorRef;
use crate::graph::definition::{Member, Source};
use crate::graph::program::Scope;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Compiler<'_> {
    /// Determines the scope of each step: the request's, or that of the items of a stream.
    pub(super) fn scopes(&mut self) {
        for &at in &self.wiring.order {
            let step = &self.graph.steps[at];
            let place = format!("steps.{}", step.name);
            let mut scope = ROOT;
            for (name, source) in &step.inputs {
                for read in self.scopes_read(&format!("{place}.in.{name}"), source) {
                    scope = self.met(&format!("{place}.in.{name}"), scope, read);
                }
            }
            let conditions = step.when.iter().chain(step.looped.iter().map(|looped| &looped.again_while));
            for condition in conditions {
                for tensor in condition.tensors() {
                    if let TensorRef::Output { step: of, .. } = tensor {
                        let read = self.scope_of_outputs(self.graph.index(of).unwrap_or(at));
                        scope = self.met(&format!("{place}.when"), scope, read);
                    }
                }
            }
            let referenced = self.referenced(at);
            for &other in &referenced {
                scope = self.met(&format!("{place}.after"), scope, self.scope_of[other]);
            }
            if step.detach && (scope != ROOT || self.graph.streaming) {
                let message = format!("step \"{}\" belongs to a stream and cannot be detached", step.name);
                self.hinted(format!("{place}.detach"), message, "gather the items in a detached step");
            }
            self.scope_of[at] = scope;
            self.scopes[scope].steps.push(at);
            let mut ends = BTreeSet::new();
            step.inputs.iter().for_each(|(_, source)| self.ends_of(source, &mut ends));
            for &other in &referenced {
                ends.extend(self.items_of[other].map(|_| other));
                ends.extend(self.ends[other].iter().copied());
            }
            self.may_wait(&place, scope, &ends);
            self.ends[at] = ends;
            if self.metadata[at].streaming {
                self.items_of[at] = Some(self.scopes.len());
                let parent = Some(scope);
                self.scopes.push(Scope { parent, stream: Some(at), steps: Vec::new(), gathers: Vec::new() });
            }
        }
    }

    /// Returns the steps that must have ended before this one, except those whose items it reads.
    fn referenced(&self, at: usize) -> Vec<usize> {
        let step = &self.graph.steps[at];
        let conditions = step.when.iter().chain(step.looped.iter().map(|looped| &looped.again_while));
        let status = conditions.flat_map(|condition| {
            let is_tensor = |name: &Arc<str>| {
                condition
                    .tensors()
                    .into_iter()
                    .any(|tensor| matches!(tensor, TensorRef::Output { step, .. } if step == name))
            };
            condition.steps().into_iter().filter(move |name| !is_tensor(name))
        });
        let names = step.after.iter().chain(status).filter(|name| **name != step.name);
        let steps = names.filter_map(|name| self.graph.index(name));
        steps.chain(self.wiring.chosen_by[at].iter().copied()).collect()
    }

    /// Adds the streams that must have ended before the source's value exists.
    pub(super) fn ends_of(&self, source: &Source, ends: &mut BTreeSet<usize>) {
        for step in source.steps().filter_map(|name| self.graph.index(name)) {
            ends.extend(self.ends[step].iter().copied());
            if source.gather.is_some() {
                ends.extend(self.scopes[self.scope_of_outputs(step)].stream);
            }
        }
    }

    /// Refuses a step of an item that waits for the end of its own stream.
    pub(super) fn may_wait(&mut self, place: &str, scope: usize, ends: &BTreeSet<usize>) {
        let own = ends
            .iter()
            .find(|stream| self.items_of[**stream].is_some_and(|items| self.is_within(scope, items)));
        if let Some(&stream) = own {
            let name = &self.graph.steps[stream].name;
            let message = format!("it runs for each item of \"{name}\", and waits for the end of \"{name}\"");
            self.hinted(place, message, "move what needs all items into a step that reads no single item");
        }
    }

    /// Returns the inner one of two scopes, of which one must lie within the other.
    pub(super) fn met(&mut self, place: &str, a: usize, b: usize) -> usize {
        if self.is_within(a, b) {
            return a;
        }
        if !self.is_within(b, a) {
            let name =
                |scope: usize| self.scopes[scope].stream.map_or("", |step| &*self.graph.steps[step].name);
            let message =
                format!("items of the streams \"{}\" and \"{}\" cannot be joined", name(a), name(b));
            self.hinted(place, message, "gather one of them: { from = \"STEP.OUTPUT\", gather = \"stack\" }");
        }
        b
    }

    /// Returns the scopes of the values that a source reads.
    pub(super) fn scopes_read(&mut self, place: &str, source: &Source) -> Vec<usize> {
        let mut read = Vec::new();
        for member in &source.members {
            let scope = match member {
                Member::Output { step, .. } => {
                    self.graph.index(step).map_or(ROOT, |step| self.scope_of_outputs(step))
                }
                Member::Input(_) | Member::Const(_) => ROOT,
            };
            match (source.gather, self.scopes[scope].parent) {
                (None, _) => read.push(scope),
                (Some(_), Some(parent)) => read.push(parent),
                (Some(_), None) => {
                    self.fault(place, format!("{member} is not of a stream, so there is nothing to gather"));
                }
            }
        }
        read
    }
}
