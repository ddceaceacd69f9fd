//! Reads one log from standard input and prints what the log scan found, as
//! one JSON object.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let report = inquest::logs::scan_reader(std::io::stdin().lock(), &Default::default())?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
