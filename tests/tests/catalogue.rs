//! The catalogue's jobs do on a real cluster, without any plugin, what the catalogue says they do.

use std::time::{Duration, Instant};

use inquest_tests::catalogue::{CATALOGUE, Submitted};
use inquest_tests::cluster::{Cluster, Config, USERS};

#[test]
fn slurm_says_of_every_fast_job_what_the_catalogue_says() {
    let cluster = Cluster::start(Config::default()).unwrap();
    let mut waiting: Vec<Submitted> = CATALOGUE
        .iter()
        .filter(|entry| !entry.slow)
        .map(|entry| entry.submit(&cluster, USERS[0]).unwrap())
        .collect();
    for job in &waiting {
        job.act(&cluster).unwrap();
    }

    let mut deviations = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !waiting.is_empty() {
        let jobs = cluster.jobs().unwrap();
        assert!(Instant::now() < deadline, "have not ended: {waiting:?} {jobs:?}");
        waiting.retain_mut(|job| match job.ended(&jobs) {
            Some(records) => {
                for deviation in job.deviations(&records) {
                    deviations.push(format!("{}: {deviation}", job.entry.name));
                }
                false
            }
            None => true,
        });
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(deviations.is_empty(), "{}", deviations.join("\n"));
}
