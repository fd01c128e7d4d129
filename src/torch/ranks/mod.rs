//! Processes that train one model together, each on its share of every step.
//!
//! A step is what the recipe says, however many processes share it: `train.accumulate` batches, of which process
//! `rank` of `count` takes every `count`-th. What a step needs of the others goes through [`Ranks`]: sums, and a few
//! bytes. [`Alone`] is one process; under `mpirun`, a build with the cargo feature `mpi` has as many as were
//! started. Sums go through the host's memory. Where all processes have a GPU of NVIDIA, NCCL would sum on the GPUs:
//! a third implementation of the trait, whose [`Ranks::sum`] would take tensors.

#[cfg(feature = "mpi")]
mod mpi;
#[cfg(test)]
pub(crate) mod threads;

use std::fmt;
use std::ops::Deref;

use detect::data::sampling::Share;
use detect::failure::Exit;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Tensor};

/// Numbers that are summed at once: 4 MiB of float32. Large enough that a network is busy with bytes and not with
/// messages, small enough that the copies stay in memory that is at hand.
const BUCKET: i64 = 1 << 20;

/// The processes of a run. Every call that tells of others is made by all of them, in the same order; it waits for
/// them, and a process that ends in between ends all.
pub trait Ranks: fmt::Debug + Sync {
    /// Which one this is, of how many.
    fn share(&self) -> Share;

    /// Which one this is on its machine: its GPU.
    fn local_rank(&self) -> usize;

    /// Leaves the sum over all processes in each.
    fn sum(&self, values: &mut [f32]);

    /// The same in double precision.
    fn sum_f64(&self, values: &mut [f64]);

    /// What each process gives, by rank, for process 0; nothing for the others.
    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>>;

    /// What process 0 gives, for all.
    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8>;
}

impl dyn Ranks + '_ {
    /// Whether this is the process that writes and talks.
    pub fn leads(&self) -> bool {
        self.share().rank == 0
    }

    /// Whether any process says so.
    pub fn any(&self, here: bool) -> bool {
        let mut sum = [f64::from(u8::from(here))];
        self.sum_f64(&mut sum);
        sum[0] > 0.
    }

    /// What the first process that has something gives, for all.
    pub fn first(&self, bytes: &[u8]) -> Vec<u8> {
        let all = self.gather(bytes);
        self.broadcast(all.into_iter().find(|bytes| !bytes.is_empty()).unwrap_or_default())
    }

    /// What all processes have, in the order of their ranks, for process 0; nothing for the others.
    pub fn gathered<T: Serialize + DeserializeOwned>(&self, own: Vec<T>) -> Vec<T> {
        if self.share().count == 1 {
            return own;
        }
        let bytes = serde_json::to_vec(&own).expect("plain structs become JSON");
        drop(own);
        let part = |bytes: Vec<u8>| -> Vec<T> {
            serde_json::from_slice(&bytes).expect("written by the same program")
        };
        self.gather(&bytes).into_iter().flat_map(part).collect()
    }

    /// A number of process 0, for all: not one that each works out, where the last bit may hang on the processor.
    pub fn lead_number(&self, number: f64) -> f64 {
        let mut sum = [if self.leads() { number } else { 0. }];
        self.sum_f64(&mut sum);
        sum[0]
    }

    /// Leaves what process 0 has in the flat float32 tensor of each.
    pub fn lead_tensor(&self, flat: &Tensor) {
        if !self.leads() {
            // What leaves every number as it is that it is added to; 0 makes another one of -0.
            let _ = tch::no_grad(|| flat.shallow_clone().fill_(-0.));
        }
        self.sum_tensor(flat);
    }

    /// Leaves the sum over all processes in the flat float32 tensor of each.
    pub fn sum_tensor(&self, flat: &Tensor) {
        if self.share().count == 1 {
            return;
        }
        let numel = flat.numel() as i64;
        let mut values = vec![0_f32; numel.min(BUCKET) as usize];
        for start in (0..numel).step_by(BUCKET as usize) {
            let length = BUCKET.min(numel - start);
            let values = &mut values[..length as usize];
            let mut part = flat.narrow(0, start, length);
            part.to_device(Device::Cpu).copy_data(values, length as usize);
            self.sum(values);
            tch::no_grad(|| part.copy_(&Tensor::from_slice(values)));
        }
    }
}

/// [`Ranks`] to be handed around as a number is, also to libtorch: they are there as long as the program.
#[derive(Debug, Clone, Copy)]
pub struct Group(pub(crate) &'static &'static dyn Ranks);

impl Group {
    /// Of one process.
    pub const ALONE: Self = Self(&(&Alone as &dyn Ranks));

    /// Of what the program has joined. To be made once: it stays.
    pub fn new(ranks: impl Ranks + 'static) -> Self {
        let ranks: &dyn Ranks = Box::leak(Box::new(ranks));
        Self(Box::leak(Box::new(ranks)))
    }
}

impl Deref for Group {
    type Target = dyn Ranks;

    fn deref(&self) -> &(dyn Ranks + 'static) {
        *self.0
    }
}

/// One process.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Ranks for Alone {
    fn share(&self) -> Share {
        Share::WHOLE
    }

    fn local_rank(&self) -> usize {
        0
    }

    fn sum(&self, _: &mut [f32]) {}

    fn sum_f64(&self, _: &mut [f64]) {}

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        vec![bytes.to_vec()]
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }
}

/// The processes that this one was started with.
///
/// # Errors
/// Where there are several and this build can't join them: each would make a run of its own.
pub fn join() -> anyhow::Result<Group> {
    #[cfg(feature = "mpi")]
    if let Some(ranks) = mpi::join()? {
        return Ok(Group::new(ranks));
    }
    #[cfg(not(feature = "mpi"))]
    if let Some(count) = started_with() {
        return detect::fail!(
            Exit::Usage,
            "{count} processes were started together, and this program knows of one alone: build it with \
             `cargo build --release --workspace --features detect-torch/mpi`, or start it without mpirun"
        );
    }
    Ok(Group::ALONE)
}

/// How many processes a launcher says that it has started, if more than one.
#[cfg(not(feature = "mpi"))]
fn started_with() -> Option<usize> {
    // Open MPI's, MPICH's and Intel's; and Slurm's where it starts processes that find each other by PMIx.
    let slurm = std::env::var_os("PMIX_RANK").map(|_| "SLURM_STEP_NUM_TASKS");
    let names = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"].into_iter().chain(slurm);
    let counts = names.filter_map(|name| std::env::var(name).ok()?.parse().ok());
    counts.max().filter(|&count| count > 1)
}

/// Takes leave of the others at the end of the program. A process that ends with an error ends all of them,
/// with its exit code.
pub fn leave(exit: Exit) {
    #[cfg(feature = "mpi")]
    mpi::leave(exit);
    #[cfg(not(feature = "mpi"))]
    let _ = exit;
}

#[cfg(test)]
mod tests {
    use super::threads::Threads;
    use super::*;

    #[test]
    fn the_numbers_of_the_first_are_given_to_all_to_the_bit() {
        let first = [0.1_f32, -0., 0., f32::MIN_POSITIVE, -3e38, f32::INFINITY];
        let group = Threads::group(3);
        let given = [first, [7.; 6], [f32::NAN; 6]].map(|numbers| Tensor::from_slice(&numbers));
        let found = group.each(given.into(), |_, flat: Tensor| {
            group.ranks.lead_tensor(&flat);
            Vec::<f32>::try_from(flat).unwrap()
        });
        for numbers in found {
            let bits: Vec<u32> = numbers.into_iter().map(f32::to_bits).collect();
            assert_eq!(bits, first.map(f32::to_bits));
        }
    }
}
