//! A frozen NASNet: its layers, and the programs that were made of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use detect_kernel::{Instructions, Memory, run};
use rayon::ThreadPool;

use super::layers::{Layers, Tensors};
use super::map::Map;
use super::program::{Builder, Program, Value};
use super::walk::Walk;
use crate::config::{Backbone, Pooling};
use crate::geometry::Size;
use crate::nasnet::plan::{self, Plan};

/// A network with its weights.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) plan: Plan,
    pub(super) pooling: Pooling,
    pub(super) layers: Layers,
    instructions: Instructions,
    pool: Arc<ThreadPool>,
    /// Programs that were run, with what they keep, by what was asked for.
    programs: Mutex<HashMap<Request, Arc<Ready>>>,
    memory: Mutex<Memory>,
}

/// Which part of the network is run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Request {
    /// How many images (or regions) of which size.
    pub(super) images: usize,
    pub(super) size: [usize; 2],
    /// What it is given.
    pub(super) start: Start,
    /// The maps that are wanted, and whether after ReLU.
    pub(super) maps: Vec<(usize, bool)>,
}

/// What a program is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Start {
    /// Images, `[N, H, W, 3]`.
    Images,
    /// The two maps at which a detector cuts the network, side by side.
    Cut,
}

#[derive(Debug)]
struct Ready {
    program: Program,
    values: Vec<Value>,
}

/// More programs than this are forgotten: a folder of images has a few sizes.
const MOST_PROGRAMS: usize = 16;

impl Network {
    /// The stem and the first `cells` cells of `section`'s network.
    pub(super) fn new(
        section: &Backbone,
        cells: usize,
        tensors: &Tensors<'_>,
        instructions: Instructions,
        pool: Arc<ThreadPool>,
    ) -> Self {
        let plan = section.plan();
        let layers =
            pool.install(|| Layers::new(&plan, cells, section.norm_eps, tensors, instructions));
        Self {
            plan,
            pooling: section.pooling,
            layers,
            instructions,
            pool,
            programs: Mutex::default(),
            memory: Mutex::default(),
        }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many cells it has.
    pub(super) fn cells(&self) -> usize {
        self.layers.cells.len()
    }

    /// Runs a part of the network. `given` is what [`Request::start`] says.
    ///
    /// # Panics
    /// If `given` is too short, or an image under 3 pixels a side.
    pub(super) fn run(&self, request: &Request, given: &[f32]) -> Vec<Map> {
        let each = |ready: &Ready, memory: &[f32]| {
            let of = |(value, &(_, relu)): (&Value, &(usize, bool))| {
                ready.program.read(&[(value, relu)], memory)
            };
            ready.values.iter().zip(&request.maps).map(of).collect()
        };
        self.run_and(request, given, each)
    }

    /// The same with the maps side by side in one, which have the same size.
    pub(super) fn run_joined(&self, request: &Request, given: &[f32]) -> Map {
        self.run_and(request, given, |ready, memory| {
            let all =
                ready.values.iter().zip(&request.maps).map(|(value, &(_, relu))| (value, relu));
            ready.program.read(&all.collect::<Vec<_>>(), memory)
        })
    }

    /// All wanted maps but the last, and of that one the mean over the pixels, `[N, C]`, row-major: it is not copied itself.
    ///
    /// # Panics
    /// As for [`Self::run`], or if no map is wanted.
    pub(super) fn run_to_mean(&self, request: &Request, given: &[f32]) -> (Vec<Map>, Vec<f32>) {
        self.run_and(request, given, |ready, memory| {
            let all =
                ready.values.iter().zip(&request.maps).map(|(value, &(_, relu))| (value, relu));
            let mut all: Vec<(&Value, bool)> = all.collect();
            let (value, relu) = all.pop().expect("a map is wanted");
            let maps = all.into_iter().map(|one| ready.program.read(&[one], memory)).collect();
            (maps, ready.program.mean(value, relu, memory))
        })
    }

    #[expect(
        unsafe_code,
        reason = "the one call of a program, whose steps the builder has laid out"
    )]
    fn run_and<T>(
        &self,
        request: &Request,
        given: &[f32],
        read: impl FnOnce(&Ready, &[f32]) -> T,
    ) -> T {
        let ready = self.ready(request);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let Program { waves, floats, .. } = &ready.program;
        memory.grow(*floats, self.pool.current_num_threads(), ready.program.scratch());
        // SAFETY: the builder gives buffers that are in use at the same time disjoint places, and puts a step into a wave
        // after all that it reads; see `Builder::finish`.
        unsafe { run(self.instructions, waves, &mut memory, given, &self.pool) };
        read(&ready, memory.floats())
    }

    fn ready(&self, request: &Request) -> Arc<Ready> {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = programs.get(request) {
            return known.clone();
        }
        if programs.len() >= MOST_PROGRAMS {
            programs.clear();
        }
        let ready = Arc::new(self.compile(request));
        programs.insert(request.clone(), ready.clone());
        ready
    }

    fn compile(&self, request: &Request) -> Ready {
        let mut walk = Walk {
            network: self,
            builder: Builder::new(self.instructions.lanes()),
            maps: vec![None; self.plan.cells.len() + 1],
        };
        let [height, width] = request.size;
        let last = request.maps.iter().map(|&(map, _)| map).max().unwrap_or(0);
        let first = match request.start {
            Start::Images => {
                walk.stem(request.images, Size::new(height, width));
                0
            }
            Start::Cut => walk.cut(request.images, Size::new(height, width)),
        };
        for cell in first..last {
            let made = walk.cell(cell);
            walk.maps[cell + 1] = Some(made);
        }
        let values: Vec<Value> = request
            .maps
            .iter()
            .map(|&(map, relu)| {
                let value = walk.map(plan::Map(map));
                walk.builder.keep(&value, relu);
                value
            })
            .collect();
        Ready { program: walk.builder.finish(self.pool.current_num_threads()), values }
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
