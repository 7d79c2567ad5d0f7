//! A value that each instance of a plugin computes once.

use crate::Error;
use std::sync::OnceLock;

/// A value that each instance computes once, for a `static`: parsed configuration or assets.
///
/// In a component, this is a [`OnceLock`] whose first computation may fail. In tests, many hosts
/// share the statics of one process, so each [`Host`](crate::testing::Host) has a value of its own.
///
/// By default each request has a fresh instance; the value then helps within one request. It is
/// kept longer with `instances = "reused"` in the manifest, and in a streaming model.
///
/// ```
/// use hostler_plugin::{Error, InstanceCell, assets};
///
/// static WORDS: InstanceCell<Vec<String>> = InstanceCell::new();
///
/// fn words() -> Result<&'static Vec<String>, Error> {
///     WORDS.get_or_try_init(|| {
///         let text = String::from_utf8(assets::read("words.txt")?);
///         let text = text.map_err(|_| Error::failed("asset \"words.txt\" is not UTF-8"))?;
///         Ok(text.lines().map(str::to_owned).collect())
///     })
/// }
///
/// # let host = hostler_plugin::testing::Host::new().asset("words.txt", "a\nb\n");
/// assert_eq!(words().unwrap().len(), 2);
/// ```
#[derive(Debug, Default)]
pub struct InstanceCell<T>(OnceLock<T>);

impl<T> InstanceCell<T> {
    /// Creates an empty cell.
    pub const fn new() -> InstanceCell<T> {
        InstanceCell(OnceLock::new())
    }
}

#[cfg(target_arch = "wasm32")]
impl<T: Send + Sync + 'static> InstanceCell<T> {
    /// Returns the value, and computes it if there is none yet. An error is returned and not kept:
    /// the next call computes again.
    pub fn get_or_try_init(
        &'static self,
        compute: impl FnOnce() -> Result<T, Error>,
    ) -> Result<&'static T, Error> {
        match self.0.get() {
            Some(value) => Ok(value),
            None => {
                let value = compute()?;
                Ok(self.0.get_or_init(|| value))
            }
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + Sync + 'static> InstanceCell<T> {
    /// Returns the value, and computes it if there is none yet. An error is returned and not kept:
    /// the next call computes again.
    pub fn get_or_try_init(
        &'static self,
        compute: impl FnOnce() -> Result<T, Error>,
    ) -> Result<&'static T, Error> {
        use crate::testing::with_host;
        use std::any::TypeId;

        let key = (std::ptr::from_ref(self) as usize, TypeId::of::<T>());
        let known = || with_host("an InstanceCell", |host| host.cell(key.0, key.1));
        if let Some(value) = known() {
            return Ok(value.downcast_ref().expect("invariant: the key has the type"));
        }
        let value = compute()?;
        // Lives as long as the process. A test reads few of them.
        let value: &'static T = Box::leak(Box::new(value));
        with_host("an InstanceCell", |host| host.set_cell(key.0, key.1, value));
        Ok(value)
    }
}

impl<T: Send + Sync + 'static> InstanceCell<T> {
    /// Returns the value, and computes it if there is none yet.
    pub fn get_or_init(&'static self, compute: impl FnOnce() -> T) -> &'static T {
        match self.get_or_try_init(|| Ok(compute())) {
            Ok(value) => value,
            Err(_) => unreachable!("invariant: this computation cannot fail"),
        }
    }
}
