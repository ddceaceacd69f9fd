//! Reads one log from standard input and prints what the log scan found, as
//! one JSON object. With `--patterns` it prints the literals of the prefilter
//! instead, so that `rg -F -f` can run the same search.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("--patterns") {
        println!("{}", inquest::logs::prefilter_literals().join("\n"));
        return Ok(());
    }
    let report = inquest::logs::scan_reader(std::io::stdin().lock(), &Default::default())?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
