//! A guard that counts one use of a route.

use super::route::Route;
use std::ops::Deref;
use std::sync::Arc;

/// A route that counts as used until this is dropped.
pub struct InUse(Arc<Route>);

impl InUse {
    pub fn new(route: &Arc<Route>) -> Self {
        route.usage.begin();
        InUse(Arc::clone(route))
    }
}

impl Deref for InUse {
    type Target = Arc<Route>;

    fn deref(&self) -> &Arc<Route> {
        &self.0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.usage.end();
    }
}
