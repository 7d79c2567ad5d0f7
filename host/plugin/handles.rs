//! The handles of one instance, and the host memory that their tensors hold. The table is private,
//! so that every tensor that enters or leaves it is counted.
//!
//! Whole allocations are counted, each once: a tensor may be a small part of a request's body,
//! which lives as long as the tensor does. The inputs of a call belong to its caller; they count
//! from the end of the call, if the guest has kept them.

use super::retained::{InstanceRetained, PluginRetained};
use crate::config::PluginLimits;
use crate::error::Result;
use crate::predict::{Allocation, Budget, Tensor};
use smallvec::SmallVec;
use std::any::Any;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use wasmtime::component::{Resource, ResourceTable, ResourceTableError};

/// A name up to this length is not counted: the limit on handles covers it.
const NAME_BYTES_FREE: usize = 256;

type TableResult<T> = std::result::Result<T, ResourceTableError>;

pub(super) struct Handles {
    table: ResourceTable,
    held: Arc<InstanceRetained>,
    /// By address, which is unique while a handle keeps the allocation.
    allocations: HashMap<usize, AllocationUse, BuildHasherDefault<AddressHasher>>,
}

/// An allocation that contains tensors of this instance.
struct AllocationUse {
    tensors: u32,
    bytes: usize,
    /// Calls in progress whose inputs are in the allocation, which is not counted while there are
    /// any.
    calls: SmallVec<[u32; 2]>,
}

/// The allocations that contain the inputs of a call.
pub(super) type Inputs = SmallVec<[usize; 4]>;

impl Handles {
    pub fn new(limits: &PluginLimits, plugin: &Arc<PluginRetained>, capacity: usize) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(capacity);
        Handles { table, held: InstanceRetained::new(plugin, limits), allocations: HashMap::default() }
    }

    /// Returns the account of the memory that this instance holds.
    pub fn held(&self) -> &Arc<InstanceRetained> {
        &self.held
    }

    /// For handles of anything but tensors.
    pub fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// Returns the value behind a handle of anything but a tensor.
    pub fn other<T: Any>(&self, handle: &Resource<T>) -> TableResult<&T> {
        self.table.get(handle)
    }

    pub fn count(&mut self) -> usize {
        self.table.iter_mut().count()
    }

    /// Adds a handle of a tensor that the guest has made or received. The inner error is for the
    /// guest: the instance would hold too much.
    pub fn push(&mut self, tensor: Tensor) -> wasmtime::Result<Result<Resource<Tensor>>> {
        let allocation = tensor.allocation();
        let bytes = match self.allocations.contains_key(&allocation.address) {
            true => name_bytes(&tensor),
            false => name_bytes(&tensor) + allocation.bytes,
        };
        if let Err(error) = self.held.charge(bytes) {
            return Ok(Err(error));
        }
        self.keep(&tensor, None);
        Ok(Ok(self.table.push(tensor)?))
    }

    /// Adds handles of all tensors, or of none.
    pub fn push_all(&mut self, tensors: Vec<Tensor>) -> wasmtime::Result<Result<Vec<Resource<Tensor>>>> {
        let mut handles = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            match self.push(tensor)? {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    for handle in handles {
                        self.take(handle)?;
                    }
                    return Ok(Err(error));
                }
            }
        }
        Ok(Ok(handles))
    }

    /// Adds a handle of an input of `call`, and records its allocation in `inputs` for
    /// [`Handles::end`].
    pub fn push_input(
        &mut self,
        tensor: Tensor,
        call: u32,
        inputs: &mut Inputs,
    ) -> TableResult<Resource<Tensor>> {
        self.held.add(name_bytes(&tensor));
        self.keep(&tensor, Some(call));
        let allocation = tensor.allocation();
        if allocation.bytes > 0 {
            inputs.push(allocation.address);
        }
        self.table.push(tensor)
    }

    fn keep(&mut self, tensor: &Tensor, call: Option<u32>) {
        let Allocation { address, bytes } = tensor.allocation();
        if bytes == 0 {
            return;
        }
        let new = || AllocationUse { tensors: 0, bytes, calls: call.into_iter().collect() };
        let allocation = self.allocations.entry(address).or_insert_with(new);
        allocation.tensors += 1;
        if let Some(call) = call
            && !allocation.calls.is_empty()
            && !allocation.calls.contains(&call)
        {
            allocation.calls.push(call);
        }
    }

    pub fn get(&self, handle: &Resource<Tensor>) -> TableResult<&Tensor> {
        self.table.get(handle)
    }

    /// Removes a handle and returns its tensor.
    pub fn take(&mut self, handle: Resource<Tensor>) -> TableResult<Tensor> {
        let tensor = self.table.delete(handle)?;
        self.forget(&tensor);
        Ok(tensor)
    }

    pub fn take_all(&mut self, handles: Vec<Resource<Tensor>>) -> TableResult<Vec<Tensor>> {
        handles.into_iter().map(|handle| self.take(handle)).collect()
    }

    fn forget(&mut self, tensor: &Tensor) {
        let mut bytes = name_bytes(tensor);
        let address = tensor.allocation().address;
        if let Some(allocation) = self.allocations.get_mut(&address) {
            allocation.tensors -= 1;
            if allocation.tensors == 0 {
                bytes += if allocation.calls.is_empty() { allocation.bytes } else { 0 };
                self.allocations.remove(&address);
            }
        }
        self.held.release(bytes);
    }

    /// Ends a call: from now on, the inputs that the guest has kept count as the guest's.
    pub fn end(&mut self, call: u32, inputs: &Inputs) {
        let mut kept = Inputs::new();
        for address in inputs {
            let Some(allocation) = self.allocations.get_mut(address) else { continue };
            let before = allocation.calls.len();
            allocation.calls.retain(|other| *other != call);
            if before > 0 && allocation.calls.is_empty() {
                self.held.add(allocation.bytes);
                kept.push(*address);
            }
        }
        if !kept.is_empty() {
            self.detach(&kept);
        }
        self.held.settle();
    }

    /// Copies kept tensors that came with a request or are a small part of their allocation, so
    /// that they do not keep a request's body alive.
    fn detach(&mut self, kept: &Inputs) {
        let tensors = self.table.iter_mut().filter_map(|entry| entry.downcast_mut::<Tensor>());
        let mut detached: Vec<(Tensor, Tensor)> = Vec::new();
        for tensor in tensors.filter(|tensor| kept.contains(&tensor.allocation().address)) {
            if let Some(own) = tensor.detached() {
                detached.push((std::mem::replace(tensor, own.clone()), own));
            }
        }
        for (old, own) in detached {
            self.held.add(name_bytes(&own) + own.allocation().bytes);
            self.keep(&own, None);
            self.forget(&old);
        }
    }
}

fn name_bytes(tensor: &Tensor) -> usize {
    let bytes = tensor.name().len();
    if bytes > NAME_BYTES_FREE { bytes } else { 0 }
}

/// Addresses of allocations differ enough as they are, except in their lowest bits.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, value: usize) {
        self.0 = (self.0 ^ value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::predict::Datatype;
    use bytes::Bytes;
    use prometheus::IntGauge;
    use smallvec::smallvec;

    const MB: usize = 1 << 20;

    /// A plugin with a limit of 4 MiB for one instance, and of 6 MiB for all its instances.
    struct Plugin {
        limits: PluginLimits,
        held: Arc<PluginRetained>,
        gauge: IntGauge,
    }

    impl Plugin {
        fn new() -> Self {
            let limits =
                PluginLimits { held_bytes: 4 * MB, held_total_bytes: 6 * MB, ..PluginLimits::default() };
            let gauge = IntGauge::new("held", "For a test.").unwrap();
            Plugin { held: PluginRetained::new("p".into(), &limits, gauge.clone()), limits, gauge }
        }

        fn instance(&self) -> Handles {
            Handles::new(&self.limits, &self.held, 100)
        }
    }

    fn tensor(data: Bytes) -> Tensor {
        Tensor::new("x", Datatype::Uint8, smallvec![data.len() as i64], data).unwrap()
    }

    fn made(bytes: usize) -> Tensor {
        tensor(vec![0; bytes].into())
    }

    fn kind(pushed: wasmtime::Result<Result<Resource<Tensor>>>) -> Kind {
        pushed.unwrap().unwrap_err().kind()
    }

    #[test]
    fn memory_counts_once_for_all_handles_of_it() {
        let plugin = Plugin::new();
        let mut handles = plugin.instance();
        let first = made(3 * MB);
        let again = [first.renamed("y"), first.reshaped(smallvec![3, MB as i64]).unwrap()];
        let first = handles.push(first).unwrap().unwrap();
        let again = again.map(|tensor| handles.push(tensor).unwrap().unwrap());
        assert_eq!(handles.held().bytes(), 3 * MB);
        assert_eq!(kind(handles.push(made(2 * MB))), Kind::TooLarge);
        handles.take(first).unwrap();
        assert_eq!(handles.held().bytes(), 3 * MB, "two are left");
        handles.take_all(again.into()).unwrap();
        assert_eq!((handles.held().bytes(), plugin.gauge.get()), (0, 0));
        assert!(handles.allocations.is_empty());
        handles.push(made(2 * MB)).unwrap().unwrap();
    }

    #[test]
    fn inputs_count_from_the_end_of_the_last_call_that_brought_them() {
        let plugin = Plugin::new();
        let mut handles = plugin.instance();
        let body = made(5 * MB);
        let (mut one, mut two) = Default::default();
        let kept = handles.push_input(body.clone(), 1, &mut one).unwrap();
        let other = handles.push_input(body.renamed("y"), 2, &mut two).unwrap();
        handles.push(made(3 * MB)).unwrap().expect("more than held_mb, but for the inputs");
        handles.end(1, &one);
        assert_eq!(handles.held().bytes(), 3 * MB, "the other call goes on");
        handles.take(other).unwrap();
        handles.end(2, &two);
        assert_eq!(handles.held().bytes(), 8 * MB, "the guest has kept a handle");
        assert!(handles.held().is_over());
        handles.take(kept).unwrap();
        assert_eq!(handles.held().bytes(), 3 * MB);
    }

    #[test]
    fn what_is_dropped_within_its_call_is_never_counted() {
        let plugin = Plugin::new();
        let mut handles = plugin.instance();
        let mut inputs = Inputs::new();
        let input = handles.push_input(made(MB), 1, &mut inputs).unwrap();
        handles.take(input).unwrap();
        // It may have the same address, but it is not an input.
        let own = handles.push(made(MB)).unwrap().unwrap();
        handles.end(1, &inputs);
        assert_eq!(handles.held().bytes(), MB);
        handles.take(own).unwrap();
        assert_eq!(handles.held().bytes(), 0);
    }

    #[test]
    fn a_small_part_that_is_kept_leaves_its_body() {
        let plugin = Plugin::new();
        let mut handles = plugin.instance();
        let body = Bytes::from(vec![1; 3 * MB]);
        let (part, mut inputs) = (tensor(body.slice(7..12)).part_of(Allocation::of(&body)), Inputs::new());
        let kept = handles.push_input(part, 1, &mut inputs).unwrap();
        handles.end(1, &inputs);
        assert_eq!(handles.held().bytes(), 5);
        assert_eq!(handles.get(&kept).unwrap().data()[..], [1; 5]);
        assert!(body.is_unique(), "nothing else keeps the body");
        handles.take(kept).unwrap();
        assert_eq!((handles.held().bytes(), handles.allocations.len()), (0, 0));
    }

    #[test]
    fn a_list_is_taken_whole_or_not_at_all() {
        let plugin = Plugin::new();
        let mut handles = plugin.instance();
        let refused = handles.push_all(vec![made(2 * MB), made(MB), made(2 * MB)]).unwrap();
        assert_eq!(refused.unwrap_err().kind(), Kind::TooLarge);
        assert_eq!((handles.held().bytes(), handles.count()), (0, 0));
    }

    #[test]
    fn instances_share_the_limit_of_their_plugin_and_give_back_what_they_held() {
        let plugin = Plugin::new();
        let (mut one, mut two) = (plugin.instance(), plugin.instance());
        one.push(made(4 * MB)).unwrap().unwrap();
        assert_eq!(kind(two.push(made(3 * MB))), Kind::Overloaded);
        assert_eq!((two.held().bytes(), plugin.gauge.get()), (0, 4 * MB as i64));
        two.push(made(1000)).unwrap().unwrap();
        assert!(two.held().is_over(), "the plugin is short of memory");
        two.end(1, &Inputs::new());
        assert_eq!(plugin.gauge.get(), 4 * MB as i64 + 1000, "small ones are told when the call ends");
        drop(one);
        assert!(!two.held().is_over());
        drop(two);
        assert_eq!(plugin.gauge.get(), 0);
    }

    #[test]
    fn long_names_count() {
        let plugin = Plugin::new();
        let mut handles = plugin.instance();
        let long = made(1).renamed("n".repeat(3 * MB));
        let long = handles.push(long).unwrap().unwrap();
        let again = handles.get(&long).unwrap().reshaped(smallvec![1, 1]).unwrap();
        assert_eq!(kind(handles.push(again)), Kind::TooLarge);
        handles.take(long).unwrap();
        assert_eq!(handles.held().bytes(), 0);
    }
}
