// What only the start of a program needs.
#pragma once

namespace bitctl {

// Gives back the program text that is mapped (parsers, schemas, help) and the free heap. What is needed after
// all is mapped again, from the page cache; nothing is lost. For a process that stays for days and should
// cost little.
void release_startup_memory();

}  // namespace bitctl
