// SPDX-License-Identifier: Apache-2.0
//! How granted memory looks to Python: elements of one kind in a C-contiguous shape.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_int, c_void};

use pyo3::exceptions::{PyBufferError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

/// More dimensions are refused by everybody else (`PyBUF_MAX_NDIM`).
const DIMENSIONS_MAX: usize = 64;

/// What one element is.
#[derive(Clone)]
pub struct Element {
    /// As in the `struct` module.
    format: Cow<'static, CStr>,
    bytes: isize,
}

/// One element as a plain value.
pub enum Scalar {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

/// Elements, and their order.
pub struct Layout {
    element: Element,
    dimensions: Dimensions,
    len_bytes: usize,
}

/// Lengths in elements, and strides in bytes.
enum Dimensions {
    /// The usual case, without an allocation.
    One { length: [isize; 1], stride: [isize; 1] },
    /// First all lengths, then all strides.
    Many { lengths: Box<[isize]>, strides: Box<[isize]> },
}

impl Element {
    /// Unsigned bytes.
    pub fn byte() -> Self {
        Self { format: Cow::Borrowed(c"B"), bytes: 1 }
    }

    /// What the program calls it: a name or a type of NumPy, or a letter of `struct`.
    pub fn named(dtype: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let Some(dtype) = dtype else { return Ok(Self::byte()) };
        if let Some(usual) = dtype.cast::<PyString>().ok().and_then(Self::usual) {
            return Ok(usual);
        }
        let dtypes = dtype.py().import("diolkos.dtypes")?;
        let (format, bytes): (String, isize) =
            dtypes.call_method1("element", (dtype,))?.extract()?;
        Ok(Self { format: Cow::Owned(CString::new(format)?), bytes })
    }

    /// The names that are met most; `diolkos.dtypes` knows all of them.
    fn usual(name: &Bound<'_, PyString>) -> Option<Self> {
        let (format, bytes) = match name.to_str().ok()? {
            "B" | "u1" | "uint8" => (c"B", 1),
            "H" | "u2" | "uint16" => (c"H", 2),
            "I" | "u4" | "uint32" => (c"I", 4),
            "Q" => (c"Q", 8),
            "L" | "u8" | "uint64" => (c"L", 8),
            "i" | "i4" | "int32" => (c"i", 4),
            "l" | "i8" | "int64" => (c"l", 8),
            "f" | "f4" | "float32" => (c"f", 4),
            "d" | "f8" | "float64" => (c"d", 8),
            _ => return None,
        };
        Some(Self { format: Cow::Borrowed(format), bytes })
    }
}

impl Layout {
    /// `length` bytes.
    #[inline]
    pub fn bytes(length: usize) -> Self {
        let element = Element::byte();
        let dimensions = Dimensions::One { length: [length as isize], stride: [1] };
        Self { element, dimensions, len_bytes: length }
    }

    /// Elements in this shape: a number, or a sequence of numbers.
    pub fn shaped(shape: &Bound<'_, PyAny>, element: Element) -> PyResult<Self> {
        if let Some(length) = dimension(shape)? {
            return Self::of(Cow::Borrowed(&[length]), element);
        }
        let wrong = |_| PyTypeError::new_err("a shape is an integer or a tuple of integers");
        let mut lengths = Vec::new();
        for length in shape.try_iter().map_err(wrong)? {
            match dimension(&length?)? {
                Some(length) => lengths.push(length),
                None => return Err(wrong(PyTypeError::new_err(()))),
            }
        }
        Self::of(Cow::Owned(lengths), element)
    }

    /// Elements that fill `len_bytes`, in this shape or in a row.
    pub fn filling(
        len_bytes: usize,
        shape: Option<&Bound<'_, PyAny>>,
        element: Element,
    ) -> PyResult<Self> {
        let size = element.bytes;
        let layout = match shape {
            Some(shape) => Self::shaped(shape, element)?,
            None => Self::of(Cow::Borrowed(&[len_bytes as isize / size]), element)?,
        };
        if layout.len_bytes == len_bytes {
            return Ok(layout);
        }
        Err(PyValueError::new_err(match shape {
            None => format!("{len_bytes} bytes are no whole number of elements of {size} bytes"),
            Some(_) => {
                format!("{len_bytes} bytes do not fit this shape, which takes {}", layout.len_bytes)
            }
        }))
    }

    fn of(lengths: Cow<'_, [isize]>, element: Element) -> PyResult<Self> {
        let count = lengths.len();
        if let [length] = *lengths {
            let len_bytes = element.bytes.checked_mul(length).ok_or_else(too_large)? as usize;
            let dimensions = Dimensions::One { length: [length], stride: [element.bytes] };
            return Ok(Self { element, dimensions, len_bytes });
        }
        if count > DIMENSIONS_MAX {
            return Err(PyValueError::new_err(format!(
                "a shape has at most {DIMENSIONS_MAX} dimensions, not {count}"
            )));
        }
        let mut strides = vec![element.bytes; count].into_boxed_slice();
        let mut total = Some(element.bytes);
        for at in (0..count).rev() {
            // As everywhere: an empty dimension leaves the strides of the others alone.
            strides[at] = total.ok_or_else(too_large)?;
            total = total.and_then(|bytes| bytes.checked_mul(lengths[at].max(1)));
        }
        let total = total.ok_or_else(too_large)?;
        let len_bytes = if lengths.contains(&0) { 0 } else { total as usize };
        let lengths = lengths.into_owned().into_boxed_slice();
        let dimensions = Dimensions::Many { lengths, strides };
        Ok(Self { element, dimensions, len_bytes })
    }

    /// Length of all elements in bytes.
    #[inline(always)]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Length of one element in bytes.
    pub fn item_bytes(&self) -> isize {
        self.element.bytes
    }

    /// The element, as the `struct` module writes it.
    pub fn format(&self) -> Cow<'_, str> {
        self.element.format.to_string_lossy()
    }

    /// The lengths of the dimensions.
    pub fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.lengths())
    }

    /// The elements of the first dimension.
    pub fn len(&self) -> usize {
        self.lengths().first().map_or(0, |length| *length as usize)
    }

    /// An element of a row of plain numbers, counted from its end if negative. `None`: it is not one,
    /// or lies outside.
    ///
    /// # Safety
    /// `base` must be readable for as many bytes as the layout has. Others may change them.
    #[inline]
    pub unsafe fn scalar(&self, base: *const c_void, index: isize) -> Option<Scalar> {
        let Dimensions::One { length: [length], .. } = self.dimensions else { return None };
        let index = if index < 0 { index + length } else { index };
        let &[letter] = self.element.format.to_bytes() else { return None };
        if !(0..length).contains(&index) {
            return None;
        }
        // SAFETY: inside the row, as just compared, with elements of `bytes` each.
        let at = unsafe { base.cast::<u8>().offset(index * self.element.bytes) };
        macro_rules! read {
            ($kind:ty) => {
                // SAFETY: as many bytes as the format's elements have; an array of bytes has no
                // alignment, and volatile reads may find anything.
                <$kind>::from_ne_bytes(unsafe {
                    at.cast::<[u8; size_of::<$kind>()]>().read_volatile()
                })
            };
        }
        Some(match letter {
            b'B' => Scalar::Unsigned(read!(u8).into()),
            b'H' => Scalar::Unsigned(read!(u16).into()),
            b'I' => Scalar::Unsigned(read!(u32).into()),
            b'L' | b'Q' => Scalar::Unsigned(read!(u64)),
            b'i' => Scalar::Signed(read!(i32).into()),
            b'l' | b'q' => Scalar::Signed(read!(i64)),
            b'f' => Scalar::Float(read!(f32).into()),
            b'd' => Scalar::Float(read!(f64)),
            _ => return None,
        })
    }

    fn lengths(&self) -> &[isize] {
        match &self.dimensions {
            Dimensions::One { length, .. } => length,
            Dimensions::Many { lengths, .. } => lengths,
        }
    }

    fn strides(&self) -> &[isize] {
        match &self.dimensions {
            Dimensions::One { stride, .. } => stride,
            Dimensions::Many { strides, .. } => strides,
        }
    }

    /// Why this memory cannot be shown as a view with these flags is, if it cannot.
    #[inline]
    pub fn refuses(&self, flags: c_int, readonly: bool) -> Option<&'static str> {
        let asks = |flag: c_int| flags & flag == flag;
        if readonly && asks(ffi::PyBUF_WRITABLE) {
            return Some("the memory is read-only");
        }
        let fortran = asks(ffi::PyBUF_F_CONTIGUOUS) && !asks(ffi::PyBUF_ANY_CONTIGUOUS);
        if fortran && self.lengths().len() > 1 {
            return Some("the memory is C-contiguous, not Fortran-contiguous");
        }
        None
    }

    /// Fills in a view of memory of this layout.
    ///
    /// # Safety
    /// Attached. `view` must be writable, and `object` alive, with `self` inside it at a fixed place;
    /// at `base` there must be `len_bytes` bytes until the view is released.
    #[inline]
    pub unsafe fn fill(
        &self,
        view: *mut ffi::Py_buffer,
        flags: c_int,
        object: *mut ffi::PyObject,
        base: *mut c_void,
        readonly: bool,
    ) {
        let asks = |flag: c_int| flags & flag == flag;
        let null = std::ptr::null_mut();
        // Who asks for no shape gets a row of bytes.
        let shaped = asks(ffi::PyBUF_ND);
        let dimensions = if shaped { self.lengths().len() } else { 1 };
        let address = |of: &[isize], wanted| match wanted && !of.is_empty() {
            true => of.as_ptr().cast_mut(),
            false => std::ptr::null_mut(),
        };
        let format = self.element.format.as_ptr().cast_mut();
        // SAFETY: the caller's view to fill in; the addresses are of what lives as long as `object`,
        // to which the view gets a reference of its own.
        unsafe {
            ffi::Py_INCREF(object);
            view.write(ffi::Py_buffer {
                obj: object,
                buf: base,
                len: self.len_bytes as isize,
                readonly: c_int::from(readonly),
                itemsize: self.element.bytes,
                format: if asks(ffi::PyBUF_FORMAT) { format } else { std::ptr::null_mut() },
                ndim: dimensions as c_int,
                shape: address(self.lengths(), shaped),
                strides: address(self.strides(), asks(ffi::PyBUF_STRIDES)),
                suboffsets: std::ptr::null_mut(),
                internal: null,
            });
        }
    }
}

/// The exception for a view that was refused.
#[cold]
pub fn refused(why: &'static str) -> PyErr {
    PyBufferError::new_err(why)
}

#[cold]
fn too_large() -> PyErr {
    PyValueError::new_err("the shape has more bytes than any memory")
}

/// The length of one dimension; `None` for what is no integer.
#[inline]
fn dimension(value: &Bound<'_, PyAny>) -> PyResult<Option<isize>> {
    match value.extract::<isize>() {
        Ok(length) if length >= 0 => Ok(Some(length)),
        Ok(length) => Err(PyValueError::new_err(format!(
            "the dimensions of a shape are not negative, as {length} is"
        ))),
        Err(error) => dimension_error(value.py(), &error),
    }
}

#[cold]
fn dimension_error(py: Python<'_>, error: &PyErr) -> PyResult<Option<isize>> {
    if error.is_instance_of::<PyOverflowError>(py) { Err(too_large()) } else { Ok(None) }
}
