//! The pickle machine: opcodes of protocols 0 to 5 as far as `torch.save` writes them.
//!
//! A pickle is a program. This machine can do one thing with it: put together plain values and
//! descriptions of tensors. Names outside the list of [`Known`] end it, and so do opcodes that make
//! objects of any class. Nothing is loaded, looked up or called.

use std::collections::HashMap;
use std::io::Read;
use std::rc::Rc;

use super::build;
use super::fault::{Budget, Fault};
use super::input::Input;
use super::value::{Heap, Id, Known, Value};

/// Open MARKs at a time; Python's own recursion ends long before.
const MOST_MARKS: usize = 256;
/// What a value on the stack, in the memo or in a container takes at most, the growing of the vector
/// that holds it included.
pub(super) const SLOT: u64 = 3 * size_of::<Value>() as u64;

/// Reads pickles from `input`, one after the other.
pub(super) struct Machine<'b, R> {
    input: Input<R>,
    pub(super) budget: &'b mut Budget,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    pub(super) heap: Heap,
    /// Storages by key.
    pub(super) storages: HashMap<Rc<str>, Id>,
}

impl<'b, R: Read> Machine<'b, R> {
    pub(super) fn new(input: R, budget: &'b mut Budget) -> Self {
        Self {
            input: Input::new(input),
            budget,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            heap: Heap::default(),
            storages: HashMap::new(),
        }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.input.position()
    }

    /// Reads one pickle, up to its STOP.
    pub(super) fn run(&mut self) -> Result<Value, Fault> {
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        loop {
            let start = self.input.position();
            match self.step() {
                Ok(None) => {}
                Ok(Some(value)) => return Ok(value),
                Err(fault) => return Err(fault.at(&format!("at byte {start} of the pickle"))),
            }
        }
    }

    /// One opcode; the value at a STOP.
    fn step(&mut self) -> Result<Option<Value>, Fault> {
        self.budget.take(1)?;
        let code = self.input.byte()?;
        match code {
            b'.' => {
                let value = self.pop()?;
                if !self.stack.is_empty() || !self.marks.is_empty() {
                    return Err("values are left over at its end".into());
                }
                return Ok(Some(value));
            }
            0x80 => match self.input.byte()? {
                0..=5 => {}
                n => return Err(format!("protocol {n}; the newest known is 5").into()),
            },
            // A frame only says how many bytes come next.
            0x95 => self.input.skip(8)?,
            b'(' => {
                if self.marks.len() == MOST_MARKS {
                    return Err("it is nested too deeply".into());
                }
                self.marks.push(self.stack.len());
            }
            b'0' => {
                // A mark on top is what POP removes then.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.pop()?;
                self.push(top.clone())?;
                self.push(top)?;
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'I' | b'L' => {
                let line = self.input.line(self.budget)?;
                self.push(match (code, line.as_str()) {
                    (b'I', "00") => Value::Bool(false),
                    (b'I', "01") => Value::Bool(true),
                    (_, text) => match text.trim_end_matches('L').parse() {
                        Ok(number) => Value::Int(number),
                        Err(_) => return Err(format!("'{text}' is no whole number").into()),
                    },
                })?;
            }
            b'J' => {
                let number = i32::from_le_bytes(self.input.array()?);
                self.push(Value::Int(number.into()))?;
            }
            b'K' => {
                let number = self.input.byte()?;
                self.push(Value::Int(number.into()))?;
            }
            b'M' => {
                let number = u16::from_le_bytes(self.input.array()?);
                self.push(Value::Int(number.into()))?;
            }
            0x8a => {
                let length = self.input.byte()?.into();
                self.long(length)?;
            }
            0x8b => {
                let length = u32::from_le_bytes(self.input.array()?).into();
                self.long(length)?;
            }
            b'F' => {
                self.input.line(self.budget)?;
                self.push(Value::Ignored)?;
            }
            b'G' => {
                self.input.skip(8)?;
                self.push(Value::Ignored)?;
            }
            b'S' | b'V' => {
                let line = self.input.line(self.budget)?;
                let text = line.trim_matches(|c| code == b'S' && (c == '\'' || c == '"'));
                if text.contains('\\') {
                    return Err("a text with escapes, which torch.save does not write".into());
                }
                self.push(Value::Text(text.into()))?;
            }
            b'U' | 0x8c => {
                let length = self.input.byte()?.into();
                self.text(length)?;
            }
            b'T' | b'X' => {
                let length = u32::from_le_bytes(self.input.array()?).into();
                self.text(length)?;
            }
            0x8d => {
                let length = u64::from_le_bytes(self.input.array()?);
                self.text(length)?;
            }
            b'C' => {
                let length = self.input.byte()?.into();
                self.bytes(length)?;
            }
            b'B' => {
                let length = u32::from_le_bytes(self.input.array()?).into();
                self.bytes(length)?;
            }
            0x8e | 0x96 => {
                let length = u64::from_le_bytes(self.input.array()?);
                self.bytes(length)?;
            }
            b')' => self.push_items(Vec::new(), Value::Tuple)?,
            b']' => self.push_items(Vec::new(), Value::List)?,
            b'}' => self.push_items(Vec::new(), Value::Dict)?,
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..=code - 0x85 {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push_items(items, Value::Tuple)?;
            }
            b't' | b'l' => {
                let items = self.pop_mark()?;
                let make = if code == b't' { Value::Tuple } else { Value::List };
                self.push_items(items, make)?;
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push_items(items, Value::Dict)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item], false)?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend(items, false)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend(vec![key, value], true)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend(items, true)?;
            }
            // Sets hold no tensors.
            0x8f => self.push(Value::Ignored)?,
            0x90 => {
                self.pop_mark()?;
                self.expect_top("a set", |top| matches!(top, Value::Ignored))?;
            }
            0x91 => {
                self.pop_mark()?;
                self.push(Value::Ignored)?;
            }
            b'p' => {
                let line = self.input.line(self.budget)?;
                let index =
                    line.parse().map_err(|_| format!("'{line}' is no place in the memo"))?;
                self.put(index)?;
            }
            b'q' => {
                let index = self.input.byte()?.into();
                self.put(index)?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.input.array()?).into();
                self.put(index)?;
            }
            0x94 => self.put(self.memo.len() as u64)?,
            b'g' => {
                let line = self.input.line(self.budget)?;
                let index =
                    line.parse().map_err(|_| format!("'{line}' is no place in the memo"))?;
                self.get(index)?;
            }
            b'h' => {
                let index = self.input.byte()?.into();
                self.get(index)?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.input.array()?).into();
                self.get(index)?;
            }
            b'c' => {
                let (module, name) = (self.input.line(self.budget)?, self.input.line(self.budget)?);
                self.global(&module, &name)?;
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.global(&module, &name)?,
                _ => return Err("a name that is no text".into()),
            },
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let callee = self.pop()?;
                let Value::Tuple(arguments) = arguments else {
                    return Err(format!("{} in place of arguments", arguments.kind()).into());
                };
                let Value::Known(known) = callee else {
                    return Err(format!("{} is called", callee.kind()).into());
                };
                // Python makes an OrderedDict in either way, all else by REDUCE.
                if code == 0x81 && known != Known::OrderedDict {
                    return Err(format!("NEWOBJ of {known:?} is refused").into());
                }
                let value = build::construct(self, known, arguments)?;
                self.push(value)?;
            }
            b'b' => {
                // The state of an OrderedDict (`_metadata`) or a Parameter changes no tensor.
                self.pop()?;
                self.expect_top("a value that has a state", |top| {
                    matches!(top, Value::Dict(_) | Value::Tensor(_) | Value::Ignored)
                })?;
            }
            b'Q' => {
                let id = self.pop()?;
                let value = build::persistent(self, &id)?;
                self.push(value)?;
            }
            b'i' => {
                let (module, name) = (self.input.line(self.budget)?, self.input.line(self.budget)?);
                return Err(refused(&module, &name));
            }
            _ => return Err(refused_code(code)),
        }
        Ok(None)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Fault> {
        let known = Known::find(module, name).ok_or_else(|| refused(module, name))?;
        self.push(Value::Known(known))
    }

    fn push(&mut self, value: Value) -> Result<(), Fault> {
        self.budget.take(SLOT)?;
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("the stack is empty".into());
        }
        Ok(self.stack.pop().expect("the stack is higher than its floor"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>, Fault> {
        let floor = self.marks.pop().ok_or("there is no mark")?;
        // The values are copied out of the stack.
        self.budget.take((self.stack.len() - floor) as u64 * SLOT)?;
        Ok(self.stack.split_off(floor))
    }

    fn expect_top(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Result<(), Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack[floor..].last() {
            Some(top) if fits(top) => Ok(()),
            Some(top) => Err(format!("{} in place of {what}", top.kind()).into()),
            None => Err("the stack is empty".into()),
        }
    }

    pub(super) fn push_items(
        &mut self,
        items: Vec<Value>,
        make: fn(Id) -> Value,
    ) -> Result<(), Fault> {
        let value = self.allocate(items, make)?;
        self.push(value)
    }

    /// Puts a container into the heap.
    pub(super) fn allocate(
        &mut self,
        items: Vec<Value>,
        make: fn(Id) -> Value,
    ) -> Result<Value, Fault> {
        let value = make(self.heap.items.len());
        if matches!(value, Value::Dict(_)) && items.len() % 2 == 1 {
            return Err("a dict has a key without a value".into());
        }
        self.budget.take((items.len() as u64 + 1) * SLOT)?;
        self.heap.items.push(items);
        Ok(value)
    }

    /// Adds items to the list or dict on top of the stack.
    fn extend(&mut self, mut items: Vec<Value>, pairs: bool) -> Result<(), Fault> {
        self.expect_top(if pairs { "a dict" } else { "a list" }, |top| match top {
            Value::Dict(_) => pairs,
            Value::List(_) => !pairs,
            _ => false,
        })?;
        if pairs && items.len() % 2 == 1 {
            return Err("a dict has a key without a value".into());
        }
        self.budget.take(items.len() as u64 * SLOT)?;
        if let Some(Value::Dict(id) | Value::List(id)) = self.stack.last() {
            self.heap.items[*id].append(&mut items);
        }
        Ok(())
    }

    fn put(&mut self, index: u64) -> Result<(), Fault> {
        self.budget.take(SLOT)?;
        let top = self.pop()?;
        self.memo.insert(index, top.clone());
        self.push(top)
    }

    fn get(&mut self, index: u64) -> Result<(), Fault> {
        let value = self.memo.get(&index).cloned();
        self.push(value.ok_or_else(|| format!("the memo has nothing at {index}"))?)
    }

    fn text(&mut self, length: u64) -> Result<(), Fault> {
        let bytes = self.input.take(length, self.budget)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| "a text that is not UTF-8")?;
        self.push(Value::Text(text.into()))
    }

    /// Bytes are read, and not kept.
    fn bytes(&mut self, length: u64) -> Result<(), Fault> {
        self.input.skip(length)?;
        self.push(Value::Ignored)
    }

    fn long(&mut self, length: u64) -> Result<(), Fault> {
        let bytes = self.input.take(length, self.budget)?;
        self.push(if bytes.len() <= 16 {
            // Two's complement: the sign fills up.
            let negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
            let mut whole = [if negative { 0xff } else { 0 }; 16];
            whole[..bytes.len()].copy_from_slice(&bytes);
            Value::Int(i128::from_le_bytes(whole))
        } else {
            Value::Ignored
        })
    }
}

fn refused(module: &str, name: &str) -> Fault {
    Fault::Broken(format!(
        "it uses '{}.{}', which a file of tensors has no use for; nothing was run. If the file is trusted, save its state dict alone: torch.save(model.state_dict(), ...)",
        module.escape_debug(),
        name.escape_debug()
    ))
}

fn refused_code(code: u8) -> Fault {
    let name = match code {
        b'P' => "PERSID",
        b'o' => "OBJ",
        0x82..=0x84 => "EXT",
        0x92 => "NEWOBJ_EX",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => return Fault::Broken(format!("{code:#04x} is no opcode")),
    };
    Fault::Broken(format!("the opcode {name} is refused: torch.save does not write it"))
}
