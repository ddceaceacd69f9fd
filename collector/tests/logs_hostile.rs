//! Any bytes at all: no panic, bounded memory, and the same answer however
//! the bytes arrive.

use std::io::{self, Read};

use inquest::logs::{ScanOptions, analyze_lines, fingerprint, normalise, scan_reader};
use proptest::prelude::*;

/// Hands out the bytes in pieces of changing size, as pipes do.
struct Pieces<'a> {
    left: &'a [u8],
    size: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.size = self.size * 7 % 61 + 1;
        let n = self.size.min(self.left.len()).min(buffer.len());
        buffer[..n].copy_from_slice(&self.left[..n]);
        self.left = &self.left[n..];
        Ok(n)
    }
}

/// Fragments that parsers look for, put together without sense.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("Traceback (most recent call last):".to_owned()),
        Just("  File \"a.py\", line 1, in f".to_owned()),
        Just("ValueError: x".to_owned()),
        Just("KeyError: Caught KeyError in DataLoader worker process 0.".to_owned()),
        Just("Original Traceback (most recent call last):".to_owned()),
        Just("The above exception was the direct cause of the following exception:".to_owned()),
        Just("During handling of the above exception, another exception occurred:".to_owned()),
        Just("Caused by: java.io.IOException: y".to_owned()),
        Just("Caused by error in `f()`:".to_owned()),
        Just("Error in f(x) :".to_owned()),
        Just("Error:".to_owned()),
        Just("! z".to_owned()),
        Just("ERROR: LoadError: TaskFailedException".to_owned()),
        Just("    nested task error: BoundsError: a".to_owned()),
        Just("terminate called after throwing an instance of 'E'".to_owned()),
        Just("MPI_Init(12)...: ".to_owned()),
        Just("f(9)...: no".to_owned()),
        Just("--> FOAM FATAL ERROR:".to_owned()),
        Just("Command error:".to_owned()),
        Just("slurmstepd: error: *** STEP 1.0 ON n CANCELLED AT 2024-01-01T00:00:00 ***".to_owned()),
        Just("srun: error: n: task 0: Killed".to_owned()),
        Just("\u{1b}[31mred\r50%\r\u{8}".to_owned()),
        "[ -~]{0,40}",
        "\\PC{0,30}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let report = scan_reader(bytes.as_slice(), &ScanOptions::default()).expect("memory reads");
        prop_assert_eq!(report.bytes, bytes.len() as u64);
        let newlines = bytes.iter().filter(|&&b| b == b'\n').count() as u64;
        let open = u64::from(bytes.last().is_some_and(|&b| b != b'\n'));
        prop_assert_eq!(report.lines, newlines + open);
    }

    #[test]
    fn fragments(lines in proptest::collection::vec(fragment(), 0..40)) {
        let borrowed: Vec<&str> = lines.iter().map(String::as_str).collect();
        let found = analyze_lines(&borrowed);
        prop_assert_eq!(found.root_cause.is_some(), found.line_number.is_some());
        prop_assert_eq!(found.cause == inquest::logs::Cause::None, found.root_cause.is_none());
        // What is quoted stands in the log, as far as a terminal shows it.
        if let (Some(quote), Some(number)) = (&found.root_cause, found.line_number) {
            let line = lines.iter().flat_map(|l| l.split('\n')).nth(number as usize - 1);
            if let Some(line) = line.filter(|l| !l.chars().any(char::is_control)) {
                prop_assert!(line.contains(quote.as_str()), "{line:?} {quote:?}");
            }
            prop_assert!(!quote.chars().any(char::is_control));
        }
    }

    #[test]
    fn pieces_do_not_matter(lines in proptest::collection::vec(fragment(), 0..40), block in 4096usize..8192) {
        let log = lines.join("\n");
        let whole = scan_reader(log.as_bytes(), &ScanOptions::default()).expect("memory reads");
        let pieces = Pieces { left: log.as_bytes(), size: 1 };
        let pieced = scan_reader(pieces, &ScanOptions { block, ..ScanOptions::default() }).expect("memory reads");
        prop_assert_eq!(whole.finding, pieced.finding);
        prop_assert_eq!(whole.lines, pieced.lines);
    }

    #[test]
    fn fingerprints_are_of_the_normal_form(message in "\\PC{0,200}") {
        let once = normalise(&message);
        prop_assert_eq!(fingerprint(&message), fingerprint(&message));
        prop_assert!(once.len() <= 8192);
    }
}

#[test]
fn a_failure_between_much_noise_is_found() {
    // More lines with hits than are kept, the cause in the middle, and a
    // quiet end longer than the tail.
    let mut log = String::new();
    for i in 0..20_000 {
        log.push_str(&format!("WARNING: sample {i} failed a soft check\n"));
    }
    log.push_str("Traceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    f()\nOSError: [Errno 28] No space left on device\n");
    for i in 0..20_000 {
        log.push_str(&format!("WARNING: sample {i} failed a soft check\nline {i}\n"));
    }
    let report = scan_reader(log.as_bytes(), &ScanOptions::default()).expect("memory reads");
    assert_eq!(report.finding.cause, inquest::logs::Cause::DiskFull);
    assert_eq!(report.finding.line_number, Some(20_004));
    assert!(report.excerpt.iter().any(|(n, l)| *n == 20_004 && l.contains("Errno 28")));
    assert_eq!(report.lines, 60_004);
}

#[test]
fn the_excerpt_is_the_log() {
    let mut log: Vec<String> = (1..=5000).map(|i| format!("row {i}")).collect();
    for at in [10, 700, 701, 703, 2500, 4999] {
        log[at] = format!("ValueError: row {}", at + 1);
    }
    for end in ["", "\n"] {
        let text = log.join("\n") + end;
        let options = ScanOptions { block: 4096, context: 4, ..ScanOptions::default() };
        let report = scan_reader(text.as_bytes(), &options).expect("memory reads");
        assert_eq!(report.lines, 5000);
        assert_eq!(
            report.excerpt.len(),
            report.excerpt.iter().map(|(n, _)| n).collect::<std::collections::BTreeSet<_>>().len()
        );
        for (n, line) in &report.excerpt {
            assert_eq!(*line, log[*n as usize - 1]);
        }
        assert_eq!(report.tail.last(), log.last());
    }
}

#[test]
fn a_site_says_what_success_is() {
    let log = "ERROR: step 3 was odd\nALL STAGES GREEN\n";
    let plain = scan_reader(log.as_bytes(), &ScanOptions::default()).expect("memory reads");
    assert_eq!(plain.finding.cause, inquest::logs::Cause::AppError);
    let options = ScanOptions { success: vec!["STAGES GREEN".into()], ..ScanOptions::default() };
    let told = scan_reader(log.as_bytes(), &options).expect("memory reads");
    assert_eq!(told.finding.cause, inquest::logs::Cause::None);
}

#[test]
fn one_endless_line() {
    let mut log = vec![b'x'; 5 << 20];
    log.extend_from_slice(b"\rSegmentation fault (core dumped)\n");
    let report = scan_reader(log.as_slice(), &ScanOptions::default()).expect("memory reads");
    assert_eq!(report.finding.cause, inquest::logs::Cause::Crash);
    assert_eq!(report.lines, 1);
}

#[test]
fn repeated_hits_stay_linear() {
    // Lines that begin like every structure and end none of them. The test
    // is that it ends: quadratic work on 200,000 lines would not.
    let log = "Traceback (most recent call last):\nError in f(x) :\nCaused by:\nf(1)...:\n".repeat(50_000);
    let report = scan_reader(log.as_bytes(), &ScanOptions::default()).expect("memory reads");
    assert_eq!(report.lines, 200_000);
}
