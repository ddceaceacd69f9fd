//! What a machine cannot try.

/// Says why a test does nothing here; the caller returns. Where `INQUEST_NO_SKIP` is set this is a failure:
/// the machine is meant to run every test.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(
        std::env::var_os("INQUEST_NO_SKIP").is_none(),
        "this test cannot run here, and INQUEST_NO_SKIP is set: {reason}"
    );
    eprintln!("skipped: {reason}");
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// Not a test by itself: the child of the one below.
    #[test]
    fn skips_where_it_is_told_to() {
        if std::env::var_os("INQUEST_TEST_SKIP").is_some() {
            super::skip("the moon is full");
        }
    }

    #[test]
    fn a_skipped_test_fails_where_none_may_be_skipped() {
        let ends = |forbidden: bool| {
            let mut test = Command::new(std::env::current_exe().unwrap());
            test.args(["--exact", "--nocapture", "skip::tests::skips_where_it_is_told_to"]);
            test.env("INQUEST_TEST_SKIP", "1").env_remove("INQUEST_NO_SKIP");
            if forbidden {
                test.env("INQUEST_NO_SKIP", "1");
            }
            let output = test.output().unwrap();
            assert!(String::from_utf8_lossy(&output.stderr).contains("the moon is full"), "{output:?}");
            output.status.success()
        };
        assert_eq!([ends(false), ends(true)], [true, false]);
    }
}
