//! The threads that read from the store. They may wait for the disk, which the threads that serve
//! connections must not do.

use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

const THREADS: usize = 2;

type Read = Box<dyn FnOnce() + Send>;

pub(super) struct Readers(Sender<Read>);

impl Readers {
    pub fn start() -> std::io::Result<Self> {
        let (sender, receiver) = channel::<Read>();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..THREADS {
            let receiver = Arc::clone(&receiver);
            std::thread::Builder::new()
                .name(format!("jobs-read-{number}"))
                .spawn(move || serve(&receiver))?;
        }
        Ok(Readers(sender))
    }

    pub async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let read: Read = Box::new(move || {
            if !sender.is_closed() {
                let _ = sender.send(read());
            }
        });
        let lost = || Error::failed("cannot read from the job store: its threads have ended");
        self.0.send(read).map_err(|_| lost())?;
        receiver.await.map_err(|_| lost())?
    }
}

fn serve(receiver: &Mutex<Receiver<Read>>) {
    loop {
        let next = receiver.lock_unpoisoned().recv();
        let Ok(read) = next else { return };
        // A damaged page may make the library panic; the next read must still find a thread.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    }
}
