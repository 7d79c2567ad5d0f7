//! A request to build a policy: its purpose, and the callers that wait for it.

use crate::error::{Error, Result};
use crate::policy::overlay::{Overlay, Overrides};
use crate::policy::record::{Record, Trigger};
use std::path::PathBuf;
use tokio::sync::oneshot;

/// A request to build a policy.
pub(super) struct Request {
    pub trigger: Trigger,
    pub goal: Goal,
    /// Files that were not quiet when they were read.
    pub unquiet: Vec<PathBuf>,
}

pub(super) enum Goal {
    /// Build what the files say. A dry run does not go live.
    Files { dry_run: bool, replies: Vec<oneshot::Sender<Result<Record>>> },
    /// Build what the files say under another overlay: a client loads a model.
    Model { name: String, overrides: Overrides, reply: Option<oneshot::Sender<Result<()>>> },
}

impl Request {
    pub fn watch(unquiet: Vec<PathBuf>) -> Self {
        let goal = Goal::Files { dry_run: false, replies: Vec::new() };
        Request { trigger: Trigger::Watch, goal, unquiet }
    }

    pub fn admin(operator: String, dry_run: bool, reply: oneshot::Sender<Result<Record>>) -> Self {
        let goal = Goal::Files { dry_run, replies: vec![reply] };
        Request { trigger: Trigger::Admin(operator), goal, unquiet: Vec::new() }
    }

    pub fn model(name: String, overrides: Overrides, reply: oneshot::Sender<Result<()>>) -> Self {
        let trigger = Trigger::ModelControl(format!("load {name}"));
        Request { trigger, goal: Goal::Model { name, overrides, reply: Some(reply) }, unquiet: Vec::new() }
    }

    pub fn is_dry_run(&self) -> bool {
        matches!(self.goal, Goal::Files { dry_run: true, .. })
    }

    /// Whether an operator sent it. That overrules an earlier refusal, and the changes of model
    /// control.
    pub fn is_by_operator(&self) -> bool {
        matches!(self.trigger, Trigger::Admin(_))
    }

    /// Answers all waiting callers with an error, without an attempt.
    pub fn refuse(self, error: &Error) {
        match self.goal {
            Goal::Files { replies, .. } => {
                replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone()))));
            }
            Goal::Model { reply, .. } => {
                reply.into_iter().for_each(|reply| drop(reply.send(Err(error.clone()))));
            }
        }
    }

    /// Takes over the waiting callers of another request if both ask for the same; else returns the
    /// other.
    pub fn merge(&mut self, other: Request) -> Option<Request> {
        match (&mut self.goal, other) {
            (
                Goal::Files { dry_run: false, replies },
                Request { goal: Goal::Files { dry_run: false, replies: more }, trigger, unquiet },
            ) if matches!(self.trigger, Trigger::Admin(_)) == matches!(trigger, Trigger::Admin(_)) => {
                replies.extend(more);
                self.unquiet.extend(unquiet);
                None
            }
            (_, other) => Some(other),
        }
    }

    /// Returns the overlay to build under, if the live policy has the overlay `live`.
    pub fn overlay(&self, live: &Overlay) -> Overlay {
        match &self.goal {
            Goal::Files { .. } if self.is_by_operator() => Overlay::default(),
            Goal::Files { .. } => live.clone(),
            Goal::Model { name, overrides, .. } => {
                let mut overlay = live.clone();
                overlay.load(name, overrides.clone());
                overlay
            }
        }
    }
}
