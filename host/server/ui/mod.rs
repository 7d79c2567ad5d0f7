//! The page for operators, at `/ui` on the admin listener.
//!
//! - `page` has the files: ES modules that a browser runs as they are.
//! - `sessions` are the operators who have signed in; `session` signs them in and out.
//! - `routes` answers the requests of the page under `/ui/api`: those of administration, jobs and
//!   models as their own interfaces do, and predictions with the steps of pipelines (`predict`).
//!
//! A session ends with its key: each request is checked against the access rules that hold then. A
//! request that changes something must also have a token that a page of another site cannot know.

mod endpoint;
mod page;
mod predict;
mod routes;
mod session;
mod sessions;
mod shown_steps;

pub(in crate::server) use endpoint::PageEndpoint;
pub(in crate::server) use routes::answer;
pub use sessions::Sessions;
