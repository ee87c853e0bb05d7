//! Pages of the program's own file, and of the libraries' that came with it.
//!
//! What a program executes or looks up once, as its start, stays resident for ever after: the system takes such pages
//! back only when it runs short. [`unload`] takes them out of the process now. Nothing is lost: they are read-only and
//! unchanged, the system's page cache goes on holding the file, and what is used again comes back by a minor fault.
use std::io;
use std::ops::Range;
use std::ptr;

/// Takes out of the process every page of code and constants that lies in the program's file or in a library's as it
/// does in memory. Says how much address space that was.
///
/// Costs some hundreds of minor faults soon after: for a process that has come to rest.
pub fn unload() -> io::Result<u64> {
    let mut walk = Walk { unchanged: unchanged(&std::fs::read_to_string("/proc/self/smaps")?), octets: 0 };
    // SAFETY: `visit` has the type that is asked for, and `walk` outlives the call that it is lent to.
    unsafe { libc::dl_iterate_phdr(Some(visit), ptr::from_mut(&mut walk).cast()) };
    Ok(walk.octets)
}

struct Walk {
    /// Mappings of files in which nothing was changed.
    unchanged: Vec<Range<usize>>,
    octets: u64,
}

/// Looks at one object, the program or a library. While this runs the loader lets nobody load or unload one.
#[allow(clippy::cast_possible_truncation, reason = "the loader's addresses are as wide as pointers")]
unsafe extern "C" fn visit(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    walk: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader passes a valid description of an object that stays loaded during this call.
    let (base, segments) = unsafe {
        let object = &*object;
        let n = usize::from(object.dlpi_phnum);
        (object.dlpi_addr as usize, std::slice::from_raw_parts(object.dlpi_phdr, n))
    };
    // SAFETY: the pointer that `unload` passed on; nobody else uses what it points to meanwhile.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    for segment in segments.iter().filter(|segment| segment.p_type == libc::PT_LOAD) {
        if segment.p_flags & libc::PF_W != 0 {
            continue;
        }
        let page = rustix::param::page_size();
        let begin = base.wrapping_add(segment.p_vaddr as usize);
        let end = begin.wrapping_add(segment.p_memsz as usize).wrapping_add(page - 1) / page * page;
        let begin = begin / page * page;
        if !walk.unchanged.iter().any(|mapping| mapping.start <= begin && end <= mapping.end) {
            continue;
        }
        // SAFETY: the pages belong to a segment that the object never writes, and the object cannot go away meanwhile;
        // none of them differs from the file. So each is the same when it is read, or executed, the next time.
        let given = unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_DONTNEED) };
        if given == 0 {
            walk.octets += (end - begin) as u64;
        }
    }
    0
}

/// Private, read-only mappings of files, all of whose pages are the file's: neither the loader has written into them
/// before they became read-only, nor a debugger.
fn unchanged(smaps: &str) -> Vec<Range<usize>> {
    let (mut found, mut current) = (Vec::new(), None);
    for line in smaps.lines() {
        if let Some(anonymous) = line.strip_prefix("Anonymous:") {
            // Not set where a mapping is of no interest, and only once for each.
            found.extend(current.take().filter(|_| anonymous.trim() == "0 kB"));
        } else if let Some(mapping) = Mapping::of(line) {
            current = mapping.is_read_only_file().then_some(mapping.range);
        }
    }
    found
}

/// The first line about a mapping.
struct Mapping<'a> {
    range: Range<usize>,
    rights: &'a str,
    path: &'a str,
}

impl<'a> Mapping<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (begin, end) = words.next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let range = address(begin)?..address(end)?;
        let rights = words.next()?;
        // Offset, device and inode; what is no file has no path, or one in brackets.
        Some(Self { range, rights, path: words.nth(3).unwrap_or_default() })
    }

    fn is_read_only_file(&self) -> bool {
        matches!(self.rights, "r-xp" | "r--p") && self.path.starts_with('/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_the_file_may_go() {
        let smaps = "\
55d0-55d8 r--p 00000000 fe:00 42                         /usr/bin/culvert
Size:               8 kB
Anonymous:          0 kB
VmFlags: rd mr mw me sd
55d8-55e0 r-xp 00008000 fe:00 42                         /usr/bin/culvert
Anonymous:          4 kB
55e0-55e8 r--p 00010000 fe:00 42                         /usr/bin/culvert
Anonymous:          8 kB
55e8-55f0 rw-p 00018000 fe:00 42                         /usr/bin/culvert
Anonymous:          0 kB
5600-5608 r--p 00000000 00:00 0
Anonymous:          0 kB
5608-5610 r--s 00000000 fe:00 43                         /usr/share/some
Anonymous:          0 kB
5610-5618 r-xp 00000000 fe:00 44                         /usr/lib/libc.so.6
Anonymous:          0 kB
7ffe-7fff r-xp 00000000 00:00 0                          [vdso]
Anonymous:          0 kB
7fff-8000 r--p 00000000 fe:00 45                         /of/an/older/system
";
        // Code with a debugger's breakpoint (55d8) and what the loader has relocated (55e0) stay, as does everything
        // that may be written, is nobody's file, or of which nothing is said.
        assert_eq!(unchanged(smaps), [0x55d0..0x55d8, 0x5610..0x5618]);
        assert_eq!(unchanged(""), []);
    }
}
