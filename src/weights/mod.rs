//! Files that hold weights, without a tensor library.

pub mod classifier;
pub mod file;
#[cfg(feature = "keras")]
pub mod hdf5;
pub mod import;
pub mod label_map;
pub mod model;
pub mod pickle;
pub mod pipeline;
pub mod random;
pub mod safetensors_file;
pub mod shipped;
pub mod source;
pub mod strict;
pub mod text_format;
pub mod tf_bundle;
pub mod tf_graph;
mod tf_proto;

pub use classifier::ClassifierInfo;
pub use file::{Contents, Element, StoredTensor, WeightsError};
#[cfg(feature = "keras")]
pub use hdf5::KerasFile;
pub use model::ModelInfo;
pub use pipeline::PipelineConfig;
pub use safetensors_file::SafetensorsFile;
pub use source::{Source, TensorInfo};
pub use tf_bundle::TfBundle;
pub use tf_graph::TfGraph;
