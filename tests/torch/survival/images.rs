//! Images that can't be read: each is an error with its name, soon, and nobody waits.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use detect::config::Config;
use detect::data::Dataset;
use detect::data::loader::TrainLoader;

use super::{Bench, Draws};

#[test]
fn a_hundred_bad_images_are_named_and_none_is_waited_for() {
    let bench = Bench::new(6, 0);
    let mut config = Config::recipe("tiny", &[]).unwrap();
    let dataset = Dataset::open(&bench.data, "train").unwrap();
    let mut draws = Draws(7);
    for trial in 0..100 {
        let bad = draws.below(6);
        let file = &dataset.images[bad].file;
        let whole = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
        match trial % 5 {
            0 => {} // missing
            1 => fs::write(file, &whole[..draws.below(whole.len() * 9 / 10)]).unwrap(),
            2 => fs::create_dir(file).unwrap(),
            3 => fs::write(file, vec![0; 1000]).unwrap(),
            // A pipe that nobody writes into: opening it would wait.
            _ => {
                let made = std::process::Command::new("mkfifo").arg(file).status().unwrap();
                assert!(made.success());
            }
        }
        config.train.loader.threads = 1 + draws.below(4);
        config.train.loader.prefetch = 1 + draws.below(4);
        config.train.batch = 1 + draws.below(3);
        let started = Instant::now();
        let steps = 6_usize.div_ceil(config.train.batch);
        let data = Arc::new(dataset.clone());
        let mut loader = TrainLoader::start(data, &config.train, &config.input, 0, steps);
        let error = loader.find_map(Result::err).expect("an epoch sees every image").to_string();
        assert!(error.contains(file.to_str().unwrap()), "{error}");
        drop(loader);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        if file.is_dir() {
            fs::remove_dir(file).unwrap();
        } else {
            let _ = fs::remove_file(file);
        }
        fs::write(file, whole).unwrap();
    }
}
