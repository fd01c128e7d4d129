//! Files that want to run something, or to fill the memory.

use std::fs;
use std::path::Path;

use super::make::{archive, both_forms, legacy, tensor, value};
use super::read_all;

/// The error that a file of these bytes gives.
fn error(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.pth");
    fs::write(&path, bytes).unwrap();
    let error = read_all(&path).expect_err("it is refused").to_string();
    assert!(error.contains("file.pth is not a valid PyTorch file"), "{error}");
    error
}

/// Opcodes that call `callee` with the one text `argument`.
fn call(callee: &str, argument: &str) -> Vec<u8> {
    let argument = [b"X".as_slice(), &(argument.len() as u32).to_le_bytes(), argument.as_bytes()];
    [callee.as_bytes(), b"(", &argument.concat(), b"tR"].concat()
}

/// Pickles that would create the file `touched`, with what their error names.
fn evil(touched: &Path) -> Vec<(Vec<u8>, &'static str)> {
    let path = touched.to_str().unwrap();
    let touch = format!("touch {path}");
    let python = format!("open({path:?}, 'w')");
    let text = |text: &str| {
        [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
    };
    let mut cases = vec![
        (call("cos\nsystem\n", &touch), "'os.system'"),
        (call("cposix\nsystem\n", &touch), "'posix.system'"),
        (call("cnt\nsystem\n", &touch), "'nt.system'"),
        (call("csubprocess\ngetoutput\n", &touch), "'subprocess.getoutput'"),
        (call("csubprocess\nPopen\n", "id"), "'subprocess.Popen'"),
        (call("cbuiltins\neval\n", &python), "'builtins.eval'"),
        (call("cbuiltins\nexec\n", &python), "'builtins.exec'"),
        (call("c__builtin__\neval\n", &python), "'__builtin__.eval'"),
        (call("cbuiltins\nopen\n", path), "'builtins.open'"),
        (call("cbuiltins\n__import__\n", "os"), "'builtins.__import__'"),
        (call("crunpy\n_run_code\n", &python), "'runpy._run_code'"),
        (call("ctorch.storage\n_load_from_bytes\n", "x"), "'torch.storage._load_from_bytes'"),
        (call("ctorch.serialization\nload\n", path), "'torch.serialization.load'"),
        (call("ctorch\nload\n", path), "'torch.load'"),
        (call("ctorch.hub\nload\n", path), "'torch.hub.load'"),
        (call("cnumpy\nload\n", path), "'numpy.load'"),
        (call("cpickle\nloads\n", "x"), "'pickle.loads'"),
        (call("cwebbrowser\nopen\n", path), "'webbrowser.open'"),
        // Names that look like those on the list.
        (call("ctorch\n_utils._rebuild_tensor_v2\n", &touch), "'torch._utils._rebuild_tensor_v2'"),
        (call("ctorch\nos.systemStorage\n", &touch), "'torch.os.systemStorage'"),
        (
            call("ccollections\nOrderedDict.__init__\n", &touch),
            "'collections.OrderedDict.__init__'",
        ),
        // getattr chains, through a list-ed name and a plain one.
        (
            [
                b"cbuiltins\ngetattr\n(ccollections\nOrderedDict\n".to_vec(),
                text("__class__"),
                b"tR".to_vec(),
            ]
            .concat(),
            "'builtins.getattr'",
        ),
        (
            [b"coperator\nattrgetter\n(".to_vec(), text("system"), b"tRcos\n\x85R".to_vec()]
                .concat(),
            "'operator.attrgetter'",
        ),
        // The name put together on the stack.
        (
            [b"\x8c\x02os\x8c\x06system\x93".to_vec(), text(&touch), b"\x85R".to_vec()].concat(),
            "'os.system'",
        ),
        // INST, OBJ, NEWOBJ and NEWOBJ_EX.
        ([b"(".to_vec(), text(&touch), b"ios\nsystem\n".to_vec()].concat(), "'os.system'"),
        ([b"(cos\nsystem\n".to_vec(), text(&touch), b"o".to_vec()].concat(), "'os.system'"),
        ([b"(ccollections\nOrderedDict\n".to_vec(), text(&touch), b"o".to_vec()].concat(), "OBJ"),
        (
            [b"csubprocess\nPopen\n".to_vec(), text(&touch), b"\x85\x81".to_vec()].concat(),
            "'subprocess.Popen'",
        ),
        ([b"ctorch\nSize\n".to_vec(), text(&touch), b"\x85\x81".to_vec()].concat(), "NEWOBJ"),
        (b"ccollections\nOrderedDict\n)}\x92".to_vec(), "NEWOBJ_EX"),
        // The registry of extensions.
        (b"\x82\x01".to_vec(), "EXT"),
        (b"\x83\x01\x00".to_vec(), "EXT"),
        (b"\x84\x01\x00\x00\x00".to_vec(), "EXT"),
        // REDUCE of what is no name.
        ([text("os.system"), text(&touch), b"\x85R".to_vec()].concat(), "a text is called"),
        ([b"}".to_vec(), text(&touch), b"\x85R".to_vec()].concat(), "a dict is called"),
        (b"ccollections\nOrderedDict\n]R".to_vec(), "in place of arguments"),
        (call("ccollections\nOrderedDict\n", &touch), "OrderedDict can't be made of (a text)"),
        (call("ctorch._utils\n_rebuild_tensor_v2\n", &touch), "can't be made of (a text)"),
        (call("ctorch\nFloatStorage\n", path), "can't be made of (a text)"),
        // Persistent ids that are none.
        (b"Pos.system\n".to_vec(), "PERSID"),
        ([text(path), b"Q".to_vec()].concat(), "persistent id"),
        ([b"(".to_vec(), text("module"), text(path), b"tQ".to_vec()].concat(), "persistent id"),
        ([text("storage"), text(path), b"\x86Q".to_vec()].concat(), "persistent id"),
        // A state for what has none, and buffers from outside.
        (
            [b"ccollections\nOrderedDict\n}".to_vec(), b"b".to_vec()].concat(),
            "in place of a value that has a state",
        ),
        (b"\x97".to_vec(), "NEXT_BUFFER"),
        (b"\x98".to_vec(), "READONLY_BUFFER"),
        (b"\xff".to_vec(), "no opcode"),
        (b"\x80\x06".to_vec(), "protocol 6"),
    ];
    // Hidden in the value beside a good tensor.
    let hidden = [
        b"}X\x01\0\0\0w".to_vec(),
        value(1, 0, &[1], &[1]),
        b"sX\x01\0\0\0v".to_vec(),
        call("cos\nsystem\n", &touch),
        b"s".to_vec(),
    ];
    cases.push((hidden.concat(), "'os.system'"));
    cases
}

#[test]
fn what_would_run_something_is_refused_and_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let touched = folder.path().join("touched");
    for (opcodes, names) in evil(&touched) {
        let pickle = [b"\x80\x02".as_slice(), &opcodes, b"."].concat();
        for file in both_forms(&pickle, &[0; 4]) {
            let error = error(&file);
            assert!(error.contains(names), "expected {names}: {error}");
            assert!(error.contains("at byte"), "{error}");
        }
        // The same in place of the facts about the machine, which are read first.
        let head = legacy(b"", b"\x88", &[]);
        let facts = [&head[..21], &pickle].concat();
        assert!(error(&facts).contains(names));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a file appeared");
}

#[test]
fn the_handmade_forms_are_read_where_nothing_is_wrong() {
    // Otherwise the tests here would show nothing.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good.pth");
    let storage: Vec<u8> = (0..6).flat_map(|n: u8| f32::from(n).to_le_bytes()).collect();
    for file in both_forms(&tensor(6, 1, &[2, 2], &[1, 3]), &storage) {
        fs::write(&path, file).unwrap();
        let tensors = read_all(&path).unwrap();
        let expected: Vec<u8> = [1_f32, 4., 2., 5.].iter().flat_map(|n| n.to_le_bytes()).collect();
        assert_eq!(tensors.len(), 1);
        assert_eq!((tensors[0].0.as_str(), &tensors[0].1.bytes), ("w", &expected));
    }
}

#[test]
fn every_plain_opcode_is_understood() {
    // Values of all kinds beside the tensor, each in every spelling of protocols 0 to 5, then put into
    // the memo and taken from it again. Python's own pickle reads this, too.
    let values: [&[u8]; 8] = [
        b"I3\nI01\nI00\nL-5L\nL7\nF1.5\nG\x3f\xf8\0\0\0\0\0\0",
        b"J\xff\xff\xff\xffK\x07M\x01\x02\x8a\x02\xff\x7f\x8a\x00\x8b\x01\0\0\0\x80N\x88\x89",
        b"S'text'\nS\"text\"\nVtext\nT\x01\0\0\0aU\x01aX\x02\0\0\0\xc3\xa9\x8c\x01a\x8d\x01\0\0\0\0\0\0\0a",
        b"B\x01\0\0\0\xffC\x01\xff\x8e\x01\0\0\0\0\0\0\0\xff\x96\x01\0\0\0\0\0\0\0\xff",
        b"(I1\nI2\nt(I1\nl(S'k'\nI1\nd)]}(NNt\x8f(K\x01\x90(K\x01\x91",
        b"NK\x01\x85NK\x01\x86NNN\x87](NNe]Na}NNs}(NNNNu",
        b"Np7\ng7\nq\x08h\x08r\x09\x01\0\0j\x09\x01\0\0\x94N0(NN1(0N2",
        b"\x95\x02\0\0\0\0\0\0\0NN\x80\x03ctorch\nfloat16\n\x8c\x0bcollections\x8c\x0bOrderedDict\x93)\x81",
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good.pth");
    let good = tensor(1, 0, &[1], &[1]);
    for values in values {
        // {'w': tensor, 'v': [values]}
        let pickle = [&good[..good.len() - 1], b"X\x01\0\0\0v](", values, b"es."].concat();
        for file in both_forms(&pickle, &[0; 4]) {
            fs::write(&path, file).unwrap();
            let tensors = read_all(&path).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(tensors.len(), 1);
        }
    }
    // Opcodes that find nothing on the stack or in the memo.
    let broken: [&[u8]; 13] = [
        b"0", b"1", b"2", b"(2", b"e", b"]a", b"N\x87", b"]Ne", b"h\x01", b"g5\n", b"(NNNd",
        b"Ix\n", b"",
    ];
    for opcodes in broken {
        for file in both_forms(&[b"\x80\x02", opcodes, b"."].concat(), &[]) {
            assert!(error(&file).contains("of the pickle"));
        }
    }
    for file in both_forms(b"\x80\x02NN.", &[]) {
        assert!(error(&file).contains("left over"));
    }
}

#[test]
fn views_that_leave_their_storage_are_refused() {
    const MAX: u32 = i32::MAX as u32;
    let outside: [(u32, &[u32], &[u32]); 7] = [
        (1, &[6], &[1]),
        (6, &[1], &[1]),
        (7, &[0], &[1]),
        (0, &[2, 2], &[1, 5]),
        (0, &[MAX, MAX], &[MAX, MAX]),
        (0, &[MAX, MAX, MAX], &[0, 0, 0]),
        (0, &[2, 2], &[1]),
    ];
    for (offset, shape, strides) in outside {
        for file in both_forms(&tensor(6, offset, shape, strides), &[0; 24]) {
            error(&file);
        }
    }
    // -1 as size, stride and offset.
    for (offset, shape, strides) in
        [(u32::MAX, [1], [1]), (0, [u32::MAX], [1]), (0, [1], [u32::MAX])]
    {
        for file in both_forms(&tensor(6, offset, &shape, &strides), &[0; 24]) {
            error(&file);
        }
    }
    // A storage that is said to be larger than it is.
    for file in both_forms(&tensor(7, 0, &[7], &[1]), &[0; 24]) {
        assert!(error(&file).contains("expected"));
    }
}

#[test]
fn foreign_files_are_named() {
    let pickle = tensor(1, 0, &[1], &[1]);
    let file =
        archive(&[("a/data.pkl", &pickle), ("a/data/0", &[0; 4]), ("a/byteorder", b"big")], false);
    assert!(error(&file).contains("big-endian"));
    assert!(error(&legacy(&pickle, b"little_endian\x89", &[0; 4])).contains("big-endian"));
    let script = archive(
        &[("a/data.pkl", &pickle), ("a/constants.pkl", b")."), ("a/data/0", &[0; 4])],
        false,
    );
    assert!(error(&script).contains("TorchScript"));
    assert!(error(&archive(&[("a/model.json", b"{}")], false)).contains("not one of torch.save"));
    assert!(
        error(&archive(&[("a/data.pkl", b"N."), ("b/data.pkl", b"N.")], false)).contains("several")
    );
    assert!(error(&archive(&[("a/x", b""), ("a/x", b"")], false)).contains("two records"));
    assert!(error(b"\x80\x04N.").contains("magic number"));
    assert!(error(b"").contains("neither"));
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(error(&tar).contains("tar archive"));
    for file in both_forms(b"\x80\x02].", &[]) {
        error(&file);
    }
    assert!(error(&archive(&[("a/data.pkl", b"\x80\x02}.")], false)).contains("holds no tensors"));
    let longer = [legacy(&pickle, b"little_endian\x88", &[0; 4]), vec![0]].concat();
    assert!(error(&longer).contains("1 bytes follow"));
}

#[test]
fn what_would_fill_the_memory_is_refused() {
    // `read_all` asserts the bound.
    let many = |opcode: &[u8], count: usize| opcode.repeat(count);
    let pickles: Vec<Vec<u8>> = vec![
        // Lengths that are not there.
        b"X\xff\xff\xff\xff".to_vec(),
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x8d\0\0\0\x01\0\0\0\0".to_vec(),
        b"B\xff\xff\xff\xff".to_vec(),
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec(),
        b"\x8b\xff\xff\xff\x7f".to_vec(),
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        many(b"c", 1 << 20),
        // Values, containers, marks and memo entries of one byte each.
        many(b"N", 8 << 20),
        many(b"]", 8 << 20),
        many(b"(", 8 << 20),
        [b"N".to_vec(), many(b"2", 8 << 20)].concat(),
        [b"N".to_vec(), many(b"\x94", 8 << 20)].concat(),
        [
            b"N".to_vec(),
            (0..1 << 20).flat_map(|n: u32| [b"r".as_slice(), &n.to_le_bytes()].concat()).collect(),
        ]
        .concat(),
        // A list put into itself; tuples in tuples, deep and wide.
        [b"]q\x00".to_vec(), many(b"h\x00a", 1 << 20)].concat(),
        [b"N".to_vec(), many(b"\x85", 4 << 20)].concat(),
        [b")".to_vec(), many(b"2\x86", 4 << 20)].concat(),
        // One list of pairs, made into a dict again and again.
        [
            b"](".to_vec(),
            many(b"NN\x86", 1 << 12),
            b"e\x85q\x00".to_vec(),
            many(b"ccollections\nOrderedDict\nh\x00R0", 1 << 15),
        ]
        .concat(),
    ];
    for opcodes in pickles {
        let pickle = [b"\x80\x02".as_slice(), &opcodes, b"."].concat();
        for file in both_forms(&pickle, &[]) {
            error(&file);
        }
        // Packed, the file is small.
        error(&archive(&[("a/data.pkl", &pickle)], true));
    }
}

#[test]
fn tensors_far_larger_than_the_file_are_refused() {
    // One element, expanded.
    for shape in [[1 << 13, 1 << 13], [1 << 30, 1 << 20]] {
        for file in both_forms(&tensor(1, 0, &shape, &[0, 0]), &[0; 4]) {
            assert!(error(&file).contains("far more than the file"));
        }
    }
    // Many names for one storage.
    let mut pickle = b"\x80\x02}(".to_vec();
    let storage = vec![0; 1 << 20];
    for n in 0..100 {
        pickle.extend([b"X\x02\0\0\0", format!("{n:02}").as_bytes()].concat());
        pickle.extend(value(1 << 18, 0, &[1 << 18], &[1]));
    }
    pickle.extend(b"u.");
    for file in both_forms(&pickle, &storage) {
        assert!(error(&file).contains("far more than the file"));
    }
    // Packed zeros: as a storage, and as a pickle.
    let zeros = vec![0; 200 << 20];
    let count = (zeros.len() / 4) as u32;
    let bomb =
        archive(&[("a/data.pkl", &tensor(count, 0, &[count], &[1])), ("a/data/0", &zeros)], true);
    assert!(bomb.len() < 4 << 20, "{}", bomb.len());
    assert!(error(&bomb).contains("far more than the file"));
    // A small part of it may be read, a bit at a time.
    let bomb = archive(&[("a/data.pkl", &zeros)], true);
    error(&bomb);
    // A record that unpacks to more than the table says.
    let mut longer = archive(&[("a/data.pkl", &zeros[..100_000])], true);
    let size = 100_000_u32.to_le_bytes();
    for at in 0..longer.len() - 4 {
        if longer[at..].starts_with(&size) {
            longer[at..at + 4].copy_from_slice(&1000_u32.to_le_bytes());
        }
    }
    assert!(error(&longer).contains("longer than the table says"));
}

#[test]
fn false_tables_are_refused() {
    let good = archive(&[("a/data.pkl", &tensor(1, 0, &[1], &[1])), ("a/data/0", &[0; 4])], false);
    let end = good.len() - 22;
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        error(&file)
    };
    // The count, the size and the start of the table.
    with(end + 10, &[0xff; 2]);
    with(end + 10, &[1, 0]);
    with(end + 12, &[0xff; 4]);
    with(end + 16, &[0xff; 4]);
    with(end + 16, &[0; 4]);
    // A record's own header: its mark, its method, its name.
    for (at, byte) in [(0, b'X'), (8, 8), (30, b'b')] {
        assert!(with(at, &[byte]).contains(if at == 0 {
            "neither"
        } else {
            "header of the record"
        }));
    }
    // A table of many entries: all of them one record.
    let names: Vec<String> = (0..60_000).map(|n| format!("a/data/{n}")).collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), [].as_slice())).collect();
    error(&archive(&records, false));
    // A 64-bit end record that points anywhere.
    let mut wide = good[..end].to_vec();
    wide.extend(b"PK\x06\x07\0\0\0\0");
    wide.extend((u64::MAX - 10).to_le_bytes());
    wide.extend([0; 4]);
    wide.extend(&good[end..]);
    error(&wide);
}
