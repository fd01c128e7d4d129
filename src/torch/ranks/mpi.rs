//! Processes that an MPI launcher started.

use std::sync::{Mutex, PoisonError};

use detect::data::sampling::Share;
use detect::fail;
use detect::failure::Exit;
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, CommunicatorCollectives as _, Root as _};

use super::Ranks;

/// One of these is set in every process that a launcher started: by Open MPI, by `PMIx` or by MPICH. Without any, MPI
/// is left alone: it would take a second to find that there is nobody.
const LAUNCHED: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"];

/// MPI, until [`leave`]. Dropping it waits for all processes, so an error must not drop it on its way up.
static UNIVERSE: Mutex<Option<Universe>> = Mutex::new(None);

/// All processes of `mpirun`: the world, which is no field since its handle is a pointer.
#[derive(Debug)]
pub(super) struct Mpi {
    share: Share,
    local_rank: usize,
}

/// The processes that a launcher started, if one did.
pub(super) fn join() -> anyhow::Result<Option<Mpi>> {
    if !LAUNCHED.iter().any(|name| std::env::var_os(name).is_some()) {
        return Ok(None);
    }
    // One thread at a time speaks to the others: the main one, and for synchronised batch norm on a GPU libtorch's,
    // while the main one waits for it.
    let Some((universe, _)) = mpi::initialize_with_threading(Threading::Serialized) else {
        return fail!(Exit::Internal, "MPI was started twice");
    };
    let world = universe.world();
    *UNIVERSE.lock().unwrap_or_else(PoisonError::into_inner) = Some(universe);
    let share = Share { rank: world.rank() as usize, count: world.size() as usize };
    let local_rank = world.split_shared(world.rank()).rank() as usize;
    Ok(Some(Mpi { share, local_rank }))
}

pub(super) fn leave(exit: Exit) {
    let Some(universe) = UNIVERSE.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    match exit {
        Exit::Done | Exit::Interrupted | Exit::Terminated => drop(universe),
        // Process 0 tells it, and then ends all: nobody is to be faster.
        Exit::NonFinite if universe.world().rank() > 0 => drop(universe),
        error => universe.world().abort(error as i32),
    }
}

impl Ranks for Mpi {
    fn share(&self) -> Share {
        self.share
    }

    fn local_rank(&self) -> usize {
        self.local_rank
    }

    fn sum(&self, values: &mut [f32]) {
        let own = values.to_vec();
        SimpleCommunicator::world().all_reduce_into(&own[..], values, SystemOperation::sum());
    }

    fn sum_f64(&self, values: &mut [f64]) {
        let own = values.to_vec();
        SimpleCommunicator::world().all_reduce_into(&own[..], values, SystemOperation::sum());
    }

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lengths = vec![0_i32; self.share.count];
        // Never empty: the address of an empty list of bytes in Rust is 1, and that is what Open MPI calls
        // MPI_IN_PLACE.
        let bytes = &[&[0], bytes].concat()[..];
        let own = i32::try_from(bytes.len()).expect("a message to other processes is below 2 GiB");
        SimpleCommunicator::world().all_gather_into(&own, &mut lengths[..]);
        let world = SimpleCommunicator::world();
        let root = world.process_at_rank(0);
        if self.share.rank > 0 {
            root.gather_varcount_into(bytes);
            return Vec::new();
        }
        let mut starts = Vec::with_capacity(lengths.len());
        let mut end = 0_i32;
        for &length in &lengths {
            starts.push(end);
            end = end.checked_add(length).expect("messages of all processes are below 2 GiB");
        }
        let mut all = vec![0_u8; end as usize];
        let mut places = PartitionMut::new(&mut all[..], &lengths[..], &starts[..]);
        root.gather_varcount_into_root(bytes, &mut places);
        let parts = starts.iter().zip(&lengths);
        parts.map(|(&at, &length)| all[at as usize..(at + length) as usize][1..].to_vec()).collect()
    }

    fn broadcast(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let world = SimpleCommunicator::world();
        let root = world.process_at_rank(0);
        let mut length = bytes.len() as u64;
        root.broadcast_into(&mut length);
        bytes.resize(length as usize, 0);
        if bytes.is_empty() {
            return bytes;
        }
        root.broadcast_into(&mut bytes[..]);
        bytes
    }
}
