//! What an author does with the packaged program alone: a wheel is built and installed into an
//! empty environment, and with it projects are created, built, tested and served, outside this
//! repository.

mod edits;
mod installed;
mod languages;
