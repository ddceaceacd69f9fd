//! The private cluster itself, without any plugin.

use std::time::Duration;

use inquest_tests::cluster::{Cluster, Config};

#[test]
fn two_clusters_run_side_by_side() {
    let t = std::time::Instant::now();
    let one = Cluster::start(Config::default()).unwrap();
    eprintln!("{:?}", t.elapsed());
    let job = one.sbatch("inquest-test1", &["-n1"], "#!/bin/sh\nid; exit 3\n").unwrap();
    eprintln!("{:?}", one.wait_end(job, Duration::from_secs(30)));
    eprintln!("{:?}", one.stdout(job));
    let t = std::time::Instant::now();
    one.stop().unwrap();
    eprintln!("{:?}", t.elapsed());
}
