//! The order in which the replies of a stream are sent.

use tokio::sync::oneshot;

/// A turn in the order of a stream's replies. It comes when the turn before is dropped.
pub(super) struct SendTurn {
    before: Option<oneshot::Receiver<()>>,
    /// Dropped with this turn, which starts the next one.
    _own: Option<oneshot::Sender<()>>,
}

impl SendTurn {
    pub fn first() -> Self {
        SendTurn { before: None, _own: None }
    }

    /// Returns this turn and the one after it.
    pub fn split(self) -> (Self, Self) {
        let (own, before) = oneshot::channel();
        (SendTurn { before: self.before, _own: Some(own) }, SendTurn { before: Some(before), _own: None })
    }

    /// Waits until the turn comes. May be dropped and called again.
    pub async fn wait(&mut self) {
        if let Some(before) = &mut self.before {
            let _ = before.await;
            self.before = None;
        }
    }

    /// Starts the next turn as soon as this one comes.
    pub async fn pass(mut self) {
        self.wait().await;
    }
}
