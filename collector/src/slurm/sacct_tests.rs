//! What sacct of three releases really printed of the same jobs: one that
//! succeeded, failed, crashed, ran out of memory, was cancelled by its user and
//! by root, requeued, preempted, on a node that went down, of an array and of a
//! het job. The command stands above each text.

use super::*;

const TEXTS: [(&str, &str); 3] = [
    ("22.05.8", include_str!("fixtures/sacct-22.05.8.txt")),
    ("24.11.5", include_str!("fixtures/sacct-24.11.5.txt")),
    ("26.05.5", include_str!("fixtures/sacct-26.05.5.txt")),
];

/// The answers to the two questions: of some jobs, and of what ended.
fn answers(text: &str) -> [Vec<News>; 2] {
    let parts: Vec<&str> = text.split("# SLURM_TIME_FORMAT").skip(1).collect();
    [0, 1].map(|n| parse(parts[n].split_once('\n').unwrap().1, "|"))
}

fn record(all: &[News], job: u32) -> &JobRecord {
    &all.iter().find(|n| n.job == JobId(job)).unwrap().record
}

#[test]
fn records_of_three_releases_say_the_same() {
    for (release, text) in TEXTS {
        let [asked, ended] = answers(text);
        for all in [&newest(asked), &ended] {
            let said = |job| {
                let r = record(all, job);
                (r.state.as_str(), r.exit_code, r.exit_signal, r.cancelled_by)
            };
            assert_eq!(said(1), ("COMPLETED", 0, 0, None), "{release}");
            assert_eq!(said(2), ("FAILED", 3, 0, None), "{release}");
            assert_eq!(said(3), ("FAILED", 0, 11, None), "{release}");
            assert_eq!(said(4), ("OUT_OF_MEMORY", 0, 125, None), "{release}");
            assert_eq!(said(6), ("CANCELLED", 0, 0, Some(1001)), "{release}");
            assert_eq!(said(7), ("CANCELLED", 0, 0, Some(0)), "{release}");
            assert!(all.iter().all(|n| n.cluster.starts_with("lab")), "{release}");
            let states: BTreeSet<&str> = all.iter().map(|n| n.record.state_word()).collect();
            assert!(states.contains("PREEMPTED"), "{release}: {states:?}");
        }
        assert!(ended.iter().all(|n| n.record.is_final() && n.end.is_some()), "{release}");
        let states: BTreeSet<&str> = ended.iter().map(|n| n.record.state_word()).collect();
        assert!(states.contains("NODE_FAIL") || release == "24.11.5", "{release}: {states:?}");
    }
}

#[test]
fn of_the_records_of_a_requeued_job_the_newest_counts_and_the_others_are_restarts() {
    for (release, text) in TEXTS {
        let [asked, _] = answers(text);
        assert_eq!(asked.iter().filter(|n| n.job == JobId(8)).count(), 2, "{release}: requeued once");
        let newest = newest(asked);
        let requeued = record(&newest, 8);
        assert_eq!((requeued.state.as_str(), requeued.restarts), ("RUNNING", 1), "{release}");
        assert!(!requeued.is_final(), "{release}");
    }
}

#[test]
fn only_columns_that_the_release_has_are_asked_for() {
    let help = "Account  JobIDRaw Cluster\nState ExitCode  Reason Timelimit Start\n End\n";
    assert_eq!(columns(help), "JobIDRaw,Cluster,State,ExitCode,Reason,Timelimit,Start,End");
    assert!(columns(&format!("{help} Restarts")).ends_with(",End,Restarts"));
}

#[test]
fn what_is_cut_missing_or_in_another_order_is_read_as_far_as_it_goes() {
    let text = "State|JobIDRaw|Start\nOUT_OF_ME+|7|100\nCANCELLED+|8|Unknown\n|9|1\nRUNNING|x|1\nFAILED\n\nTIMEOUT|10\n";
    let said: Vec<_> = parse(text, "|")
        .into_iter()
        .map(|n| (n.job.0, n.record.state, n.start.map(|t| t.0), n.end))
        .collect();
    assert_eq!(
        said,
        [
            (7, "OUT_OF_MEMORY".into(), Some(100_000_000), None),
            (8, "CANCELLED".into(), None, None),
            (10, "TIMEOUT".into(), None, None)
        ]
    );
    for nothing in ["", "\n", "sacct: error: slurmdbd is down", "||||\n||||\n"] {
        assert_eq!(parse(nothing, "|"), [], "{nothing:?}");
    }
}

#[test]
fn limits_are_written_as_squeue_does() {
    for (text, limit) in [
        ("00:01:00", "1:00"),
        ("01:00:00", "1:00:00"),
        ("12:00:00", "12:00:00"),
        ("365-00:00:00", "365-00:00:00"),
        ("UNLIMITED", "UNLIMITED"),
        ("Partition_Limit", ""),
        ("", ""),
    ] {
        assert_eq!(limit_of(text), limit);
    }
}

#[test]
fn a_record_agrees_with_one_that_says_the_same_end() {
    let squeue =
        |state: &str, code| JobRecord { state: state.into(), exit_code: code, ..JobRecord::default() };
    let by = |uid| JobRecord { cancelled_by: Some(uid), ..squeue("CANCELLED", 0) };
    assert!(squeue("TIMEOUT", 15).agrees(&squeue("TIMEOUT", 0)));
    assert!(!squeue("FAILED", 1).agrees(&squeue("FAILED", 2)));
    assert!(!squeue("COMPLETED", 0).agrees(&squeue("OUT_OF_MEMORY", 0)));
    assert!(!squeue("CANCELLED", 0).agrees(&by(7)), "who did it is news");
    assert!(by(7).agrees(&by(7)) && by(7).agrees(&squeue("CANCELLED", 0)));
    let limit = JobRecord { time_limit: "1:00".into(), ..squeue("TIMEOUT", 0) };
    assert_eq!(squeue("TIMEOUT", 0).or(&limit).time_limit, "1:00");
}

#[test]
fn what_never_had_a_node_is_told_with_what_it_was() {
    let text = "JobIDRaw|Cluster|State|ExitCode|Reason|Timelimit|Start|End|JobID|Submit|UID|NodeList|JobName|WorkDir\n\
                7|lab|CANCELLED|0:0|Dependency|1:00|100|100|7|90|1001|None assigned|fit\n8|lab|COMPLETED|x|/w\n\
                9|lab|CANCELLED by 5|0:0|None|1:00|None|200|5_[1-3]|91|1001|None assigned|sweep|/home/ann\n\
                10|lab|CANCELLED by 5|0:0|Dependency|1:00|90|200|10|91|1001|n1|fit|/w\n";
    let all = parse(text, "|");
    let ids: Vec<u32> = all.iter().map(|n| n.job.0).collect();
    assert_eq!(ids, [7, 8, 9, 10], "with a delimiter that a user knows, a name makes a record");
    let text = text.replace('|', "!x!").replace("8!x!lab!x!COMPLETED!x!x!x!/w", "8|lab|COMPLETED|x|/w");
    let all = parse(&text, "!x!");
    let ids: Vec<u32> = all.iter().map(|n| n.job.0).collect();
    assert_eq!(ids, [7, 9, 10]);
    let first = all[0].submitted.clone().unwrap();
    assert_eq!((first.uid, first.name.as_deref(), first.array), (Some(1001), Some("fit"), None));
    assert!(all[0].record.never_ran && all[0].record.reason == "Dependency");
    let array = all[1].submitted.clone().unwrap();
    assert_eq!((array.array, array.index, array.at), (Some(JobId(5)), None, Some(Timestamp(91_000_000))));
    assert_eq!((&all[2].submitted, all[2].record.reason.as_str()), (&None, ""), "this one ran");
    assert_ne!(Sacct::default().delimiter, Sacct::default().delimiter);
}
