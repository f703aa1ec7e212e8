//! Files as programs write them.

use std::io::Write;
use std::os::fd::AsRawFd;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::error::Error;
use crate::event::{Decoded, RejectClass};

/// A record: number, line, bytes.
type Got = (i64, u64, String);

fn file(name: &str, text: &[u8]) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

/// Opens a file; `named` as in [`FileOptions`].
fn open_named(path: &str, fields: &Fields, named: [bool; 4]) -> Result<Records> {
    let parser = Parser::new(fields).unwrap();
    let options = FileOptions {
        format: FileFormat::Auto,
        delimiter: None,
        decimal_comma: false,
        wide: false,
        fields,
        parser: &parser,
        named,
    };
    open(path, &options)
}

/// Returns fields with a time column `t` and a value column `v`.
fn fields() -> Fields {
    Fields { device: "d".into(), value: "v".into(), time: "t".into(), ..Fields::default() }
}

/// Reads all batches until the end or an error.
fn read(name: &str, text: &[u8]) -> (Vec<RecordBatch>, Option<Error>) {
    let (_dir, path) = file(name, text);
    let fields = fields();
    let mut records = match open_named(&path, &fields, [false; 4]) {
        Ok(records) => records,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut batches = Vec::new();
    loop {
        let (batch, has_more) = records.batch(3);
        batches.push(batch);
        match has_more {
            Ok(true) => {}
            Ok(false) => return (batches, None),
            Err(error) => return (batches, Some(error)),
        }
    }
}

fn rows(name: &str, text: &[u8]) -> Vec<Got> {
    let (batches, error) = read(name, text);
    assert_eq!(error, None);
    got(&batches)
}

fn got(batches: &[RecordBatch]) -> Vec<Got> {
    let rows = batches.iter().flat_map(|batch| (0..batch.len()).map(|at| batch.row(at)));
    rows.map(|row| (row.index, row.line, String::from_utf8_lossy(row.bytes).into_owned())).collect()
}

fn values(name: &str, text: &[u8]) -> Vec<Result<f64, RejectClass>> {
    let (batches, error) = read(name, text);
    assert_eq!(error, None);
    let events = batches.iter().flat_map(|batch| (0..batch.len()).map(|at| batch.events(at).map(Decoded::into_first)));
    events.map(|event| event.map(|event| event.unwrap().metric_value).map_err(|rejection| rejection.class)).collect()
}

#[track_caller]
fn error(name: &str, text: &[u8], says: &[&str]) {
    let (_, error) = read(name, text);
    let error = error.unwrap();
    for says in says {
        assert!(error.message.contains(says), "{error}");
    }
}

fn gz(text: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text).unwrap();
    packed.finish().unwrap()
}

fn row(index: i64, line: u64, text: &str) -> Got {
    (index, line, text.to_owned())
}

#[test]
fn exact_lines_and_their_numbers_survive_quotes_blank_lines_and_crlf() {
    let text = b"t,v\r\n2014-04-01 00:00:00,1\r\n\r\n\"2014-04-01\n00:05:00\",\"2\"\r\nx,3\r\n";
    let expected = [row(0, 2, "2014-04-01 00:00:00,1"), row(1, 4, "\"2014-04-01\n00:05:00\",\"2\""), row(2, 6, "x,3")];
    assert_eq!(rows("a.csv", text), expected);
    assert_eq!(rows("a.csv.gz", &gz(text)), expected);
}

#[test]
fn lines_that_end_in_a_carriage_return_alone_are_lines() {
    assert_eq!(rows("a.csv", b"t,v\r1,2\r\r3,4"), [row(0, 2, "1,2"), row(1, 4, "3,4")]);
}

#[test]
fn a_table_without_a_device_column_is_one_device() {
    let (batches, _) = read("oven.csv.gz", &gz(b"\xef\xbb\xbfv,t\n1.5,2014-04-01 00:00:00\n"));
    let event = batches[0].events(0).unwrap().into_first().unwrap();
    assert_eq!((event.device_id.as_ref(), event.metric_value), ("oven", 1.5));
    assert_eq!(event.timestamp.unwrap().to_string(), "2014-04-01T00:00:00.000Z");
}

#[test]
fn rows_that_do_not_fit_the_table_are_rejected_not_guessed() {
    use RejectClass::{DeviceId, MetricValue, Shape, Timestamp, Utf8};
    let cases: [(&[u8], Result<f64, RejectClass>); 13] = [
        (b"2014-04-01", Err(Shape)),
        (b"2014-04-01,nan,a", Err(MetricValue)),
        (b"2014-04-01,-inf,a", Err(MetricValue)),
        (b"2014-04-01,\xff,a", Err(Utf8)),
        (b"never,1,a", Err(Timestamp)),
        // Without its device it would be another series.
        (b"2014-04-01,1", Err(Shape)),
        (b"2014-04-01,1,", Err(DeviceId)),
        // A cell more, as of an unquoted decimal comma, shifts the others.
        (b"2014-04-01,1,5,a", Err(Shape)),
        (b"2014-04-01,1,a,,", Ok(1.0)),
        (b"2014-04-01,\"1\"5,a", Err(Shape)),
        (b"2014-04-01,\"1,234\",a", Err(MetricValue)),
        (b"2014-04-01, \"1\",a", Err(MetricValue)),
        (b"2014-04-01, 1 ,\"a \"\"b\"\"\"", Ok(1.0)),
    ];
    for (row, expected) in cases {
        let text = [b"t,v,d\n", row, b"\n"].concat();
        assert_eq!(values("a.csv", &text), [expected], "{}", String::from_utf8_lossy(row));
    }
}

#[test]
fn the_delimiter_is_that_of_the_header_line_or_of_sep() {
    for text in [
        "t;v\n1;2.5\n",
        "t\tv\n1\t2.5\n",
        "t|v\n1|2.5\n",
        "t,v\n1,2.5\n",
        "sep=;\r\nt;v\r\n1;2.5\r\n",
        "SEP=,\nt,v\n1,2.5\n",
        "v\n2.5\n",
        "\"a,b;c,d,e\";v\n1;2.5\n",
        "sep=^\nt^v\n1^2.5\n",
    ] {
        assert_eq!(values("a.csv", text.as_bytes()), [Ok(2.5)], "{text:?}");
        assert_eq!(values("a.txt", text.as_bytes()), [Ok(2.5)], "{text:?}");
    }
}

#[test]
fn comments_and_repeated_header_lines_are_counted_and_not_rows() {
    let text = b"# made by x, \"y\n#v,t\n\nt,v\n1,2\n# half, \"time\nt,v\n3,4\nt,v\n";
    let (batches, error) = read("a.csv", text);
    assert_eq!(error, None);
    assert_eq!(got(&batches), [row(0, 5, "1,2"), row(1, 8, "3,4")]);
    let mut passed = SkippedLines::default();
    batches.iter().for_each(|batch| passed.join(batch.passed));
    assert_eq!(
        passed,
        SkippedLines { comments: LineCount { count: 1, first: 6 }, headers: LineCount { count: 2, first: 7 } }
    );
}

#[test]
fn a_header_line_may_itself_be_a_comment() {
    let (batches, error) = read("a.csv", b"# logger 7\n# t, v\n1,2\n3,4\n");
    assert_eq!(error, None);
    assert_eq!(got(&batches), [row(0, 3, "1,2"), row(1, 4, "3,4")]);
    assert_eq!(values("a.csv", b"# t, v\n1,2\n"), [Ok(2.0)]);
}

#[test]
fn an_open_quote_is_an_error_of_the_row_that_opens_it() {
    let many = "a,1\n".repeat(200);
    error("a.csv", format!("t,v\n1,2\n\"3,4\n5,6\n{}", "7,8\n".repeat(20)).as_bytes(), &["a.csv:3:", "the file ends"]);
    error("a.csv", format!("t,v\n1,2\n\"3,4\n{many}\"").as_bytes(), &["a.csv:3:", "100 lines"]);
    error("a.csv", b"t,v\n\"3,4\n\"5\",6\n\"7\",8\n", &["a.csv:2:", "text follows the next quote"]);
    error("a.csv", b"\"t,v\n3,4\n", &["a.csv:1:", "the file ends"]);
    let (batches, _) = read("a.csv", b"t,v\n1,2\n\"3,4\n5,6\n");
    assert_eq!(got(&batches), [row(0, 2, "1,2")], "rows before the quote are read");
}

#[test]
fn an_endless_record_needs_bounded_memory() {
    let long = vec![b'x'; MAX_RECORD + 10];
    error("a.jsonl", &[b"{}\n", &long[..]].concat(), &["a.jsonl:2:", "16 MiB"]);
    error("a.jsonl", &[b"{}\n", &long[..], b"\n{}"].concat(), &["a.jsonl:2:", "16 MiB"]);
    error("a.csv", &[b"t,v\n\"", &long[..], b"\",1\n"].concat(), &["a.csv:2:", "16 MiB"]);
    error("a.csv", &[&long[..], b",v\n"].concat(), &["a.csv:1:", "16 MiB"]);
    error("a.json", &[b"[{},\n{\"a\":\"", &long[..], b"\"}]"].concat(), &["a.json:2:", "16 MiB"]);
    let most = [b"t,v\n".to_vec(), long[..MAX_RECORD - 2].to_vec(), b",1\n".to_vec()].concat();
    assert_eq!(values("a.csv", &most), [Err(RejectClass::Timestamp)]);
}

#[test]
fn a_batch_of_long_records_is_full_early() {
    let line = format!("\"{}\",1\n", "x".repeat(3 << 20));
    let (batches, error) = read("a.csv", format!("t,v\n{}", line.repeat(9)).as_bytes());
    assert_eq!(error, None);
    assert!(
        batches.iter().all(|batch| batch.len() <= 2),
        "{:?}",
        batches.iter().map(RecordBatch::len).collect::<Vec<_>>()
    );
}

#[test]
fn columns_that_are_named_or_needed_must_be_there_once() {
    error("a.csv", b"time,reading\n", &["`v`", "time, reading", "--value-field"]);
    error("a.csv", b"t,V\n1,2\n", &["did you mean `V`?"]);
    error("a.csv", b"2014-04-01,1.5\n", &["`v`", "begins with a header line"]);
    error("a.csv", b"t,v,v\n", &["two columns `v` (2 and 3)"]);
    error("a.csv", b"t\x1b[31m,x\n", &["t\\u{1b}[31m"]);
    let (_dir, path) = file("a.csv", b"v,x\n1,2\n");
    let fields = fields();
    for (at, name) in [(0, "`d`"), (1, "`metric_name`"), (3, "`t`")] {
        let mut named = [false; 4];
        named[at] = true;
        let error = open_named(&path, &fields, named).err().unwrap();
        assert!(error.message.contains(name) && error.message.contains("v, x"), "{error}");
    }
}

#[test]
fn blank_lines_are_no_records_of_json_lines() {
    let lines = rows("a.jsonl", b"{\"a\":1}\r\n\n  \n{\"b\":2}");
    assert_eq!(lines, [row(0, 1, "{\"a\":1}"), row(1, 4, "{\"b\":2}")]);
}

#[test]
fn a_json_document_is_its_members_wherever_the_lines_end() {
    let expected = ["{\"v\":1}", "{\"v\":[2,{}],\"x\":\"]}\\\"\"}", "3", "[4]", "\"five\""];
    for between in [",", " ,\n ", "\n", ", \n,"] {
        for (begin, end) in [("[", "]"), ("\n [ ", " \n]\n"), ("[", ",]"), ("\u{feff}[\n", "\n]")] {
            let text = format!("{begin}{}{end}", expected.join(between));
            let members = rows("a.json", text.as_bytes());
            let texts = members.iter().map(|(_, _, text)| text.as_str()).collect::<Vec<_>>();
            assert_eq!(texts, expected, "{text:?}");
        }
    }
    let printed = b"{\n  \"v\": 1\n}\n{\n  \"v\": 2\n}\n";
    assert_eq!(rows("a.json", printed), [row(0, 1, "{\n  \"v\": 1\n}"), row(1, 4, "{\n  \"v\": 2\n}")]);
    assert_eq!(rows("a.txt", b"[{\"v\":1},\n{\"v\":2}]"), [row(0, 1, "{\"v\":1}"), row(1, 2, "{\"v\":2}")]);
    // A broken line does not make a document of the others.
    assert_eq!(rows("a.jsonl", b"{\"v\":1,\n{\"v\":2}\n"), [row(0, 1, "{\"v\":1,"), row(1, 2, "{\"v\":2}")]);
    error("a.json", b"[{\"v\":1},{\"v\":2}", &["a.json:1:", "within the array"]);
    error("a.json", b"[{\"v\":1},\n{\"v\":2", &["a.json:2:", "within the JSON value"]);
}

#[test]
fn members_are_found_whatever_the_pieces_they_are_read_in() {
    let text = br#"[{"a":"\\\"]}"}, 12 ,"\\",[[]],{}]"#;
    let whole = rows("a.json", text);
    assert_eq!(whole.len(), 5);
    // A pipe gives a byte at a time.
    let (from, mut to) = std::io::pipe().unwrap();
    let writing = std::thread::spawn(move || text.iter().for_each(|byte| to.write_all(&[*byte]).unwrap()));
    let path = format!("/proc/self/fd/{}", from.as_raw_fd());
    let fields = fields();
    let mut records = open_named(&path, &fields, [false; 4]).unwrap();
    let mut pieces = Vec::new();
    loop {
        let (batch, has_more) = records.batch(100);
        pieces.extend(got(&[batch]));
        if !has_more.unwrap() {
            break;
        }
    }
    writing.join().unwrap();
    assert_eq!(pieces, whole);
}

#[test]
fn gzip_is_unpacked_also_in_several_members_and_damage_is_an_error() {
    let two = [gz(b"t,v\n1,2\n"), gz(b"3,4\n")].concat();
    assert_eq!(rows("a.csv", &two), [row(0, 2, "1,2"), row(1, 3, "3,4")]);
    let text = (0..100_000).map(|i| format!("{i},{}\n", i * 7_919 % 1_000)).collect::<String>();
    let packed = gz(format!("t,v\n{text}").as_bytes());
    let (batches, error) = read("a.csv.gz", &packed[..packed.len() / 2]);
    let error = error.unwrap();
    assert!(error.message.contains("damaged or cut off") && error.kind == crate::error::ExitKind::Data, "{error}");
    assert!(got(&batches).len() > 1_000, "rows before the damage are read");
}

#[test]
fn a_file_that_is_not_text_is_refused_with_a_remedy() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    error("a.csv", &utf16("\u{feff}t,v\n1,2\n"), &["UTF-16", "iconv"]);
    error("a.csv", &utf16("t,v\n1,2\n"), &["UTF-16", "iconv"]);
    error("a.xlsx", b"PK\x03\x04\x14\0", &["spreadsheet"]);
    error("a.csv", b"", &["a.csv is empty"]);
    error("a.csv", b"# nothing\n", &["comments only"]);
    assert_eq!(rows("a.jsonl", b""), []);
}

#[test]
fn a_device_is_put_together_from_columns_and_rows_are_ignored_as_json_is() {
    let fields = Fields {
        device: "{host}/{cpu}".into(),
        value: "v".into(),
        ignore: vec!["kind=test".into()],
        ..Fields::default()
    };
    let (_dir, path) = file("a.csv", b"host,cpu,v,kind\na,0,1,\n\"b \"\"c\"\"\",1,2,test \na,1,3,test\nb,,4,\n");
    let (batch, _) = open_named(&path, &fields, [true, false, false, false]).unwrap().batch(9);
    let devices = (0..4).map(|at| {
        batch.events(at).map(Decoded::into_first).map(|event| event.map(|event| event.device_id.into_owned()))
    });
    let devices = devices.map(|device| device.map_err(|rejection| rejection.class)).collect::<Vec<_>>();
    assert_eq!(devices, [Ok(Some("a/0".into())), Ok(Some("b \"c\"/1".into())), Ok(None), Err(RejectClass::DeviceId)]);
    let (_dir, path) = file("a.csv", b"host,v\na,1\n");
    let error = open_named(&path, &fields, [true, false, false, false]).err().unwrap();
    assert!(error.message.contains("no column `cpu`") && error.message.contains("host, v"), "{error}");
}

/// Index, metric and value of each event of the rows, or the class of the rejection.
type WideRow = Result<Vec<(i32, String, f64)>, RejectClass>;

fn wide(text: &[u8], fields: &Fields, wide: bool) -> Result<(Vec<WideRow>, Vec<String>), Error> {
    let (_dir, path) = file("oven.csv", text);
    let (parser, named) = (Parser::new(fields).unwrap(), [false; 4]);
    let format = FileFormat::Auto;
    let (batch, _) = open(
        &path,
        &FileOptions { format, delimiter: None, decimal_comma: false, wide, fields, parser: &parser, named },
    )?
    .batch(99);
    let row = |at| {
        let events = batch.events(at).map_err(|rejection| rejection.class)?;
        let all = events.events().map(|(index, event)| {
            assert!(event.device_id == "oven");
            (index, event.metric_name.as_deref().unwrap_or("-").to_owned(), event.metric_value)
        });
        Ok(all.collect())
    };
    let skipped = batch.reading().wide().map(|wide| wide.skipped().to_vec()).unwrap_or_default();
    Ok(((0..batch.len()).map(row).collect(), skipped))
}

#[test]
fn each_column_with_a_number_or_nothing_in_the_first_row_is_a_metric() {
    let text = b"temp;timestamp;state;\"hum \"\"x\"\"\"\n1.5;100;on;\n# note\n;110;off;40\n2;120;;3;\n1;130;on\n1;x;on;1\n;140;on;\n";
    let (rows, skipped) = wide(text, &Fields::default(), false).unwrap();
    let (temp, hum) = ("temp".to_owned(), "hum \"x\"".to_owned());
    let expected = [
        Ok(vec![(0, temp.clone(), 1.5)]),
        Ok(vec![(1, hum.clone(), 40.0)]),
        Ok(vec![(0, temp, 2.0), (1, hum, 3.0)]),
        Err(RejectClass::Shape),
        Err(RejectClass::Timestamp),
        Ok(vec![]),
    ];
    assert_eq!((&rows[..], &skipped[..]), (&expected[..], &["state".to_owned()][..]));
    let bad = b"timestamp,a,b\n1,2,3\n2,x,4\n";
    assert_eq!(wide(bad, &Fields::default(), false).unwrap().0[1], Err(RejectClass::MetricValue));
    let valid = Fields { on_partial: crate::event::OnPartial::JudgeValid, ..Fields::default() };
    assert_eq!(wide(bad, &valid, false).unwrap().0[1], Ok(vec![(1, "b".into(), 4.0)]));
}

#[test]
fn a_table_is_wide_if_it_has_a_time_but_no_value_and_no_metric_or_if_it_is_asked_for() {
    let usual = Fields::default();
    let problem = |text: &[u8], fields: &Fields, asked| wide(text, fields, asked).err().map(|error| error.message);
    for narrow in [&b"time,a\n1,2\n"[..], b"timestamp,metric_name,a\n1,m,2\n"] {
        assert!(problem(narrow, &usual, false).unwrap().contains("no column `metric_value`"));
    }
    let (rows, _) = wide(b"time,a\n1,2\n", &usual, true).unwrap();
    assert_eq!(rows, [Ok(vec![(0, "time".to_owned(), 1.0), (1, "a".into(), 2.0)])]);
    let (rows, _) = wide(b"timestamp,metric_value,a\n1,2,3\n", &usual, false).unwrap();
    assert_eq!(rows, [Ok(vec![(0, "-".to_owned(), 2.0)])], "it has a value");
    let (rows, _) = wide(b"timestamp,metric_value,a\n1,2,3\n", &usual, true).unwrap();
    assert_eq!(rows, [Ok(vec![(0, "metric_value".to_owned(), 2.0), (1, "a".into(), 3.0)])]);
    assert!(problem(b"timestamp,a\n1,x\n", &usual, false).unwrap().contains("has a number in the first row"));
    assert!(problem(b"timestamp,a,a\n1,2,3\n", &usual, false).unwrap().contains("two columns `a` (2 and 3)"));
    let array = Fields { value: "v[*]".into(), ..Fields::default() };
    assert!(problem(b"timestamp,v\n1,2\n", &array, false).unwrap().contains("--wide"));
}
