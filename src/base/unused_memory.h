// Memory that a program has touched and does not use.
#pragma once

namespace bitctl {

// Gives back the program text that is mapped (what only a start needs: parsers, schemas, help) and the free
// heap. What is needed after all is mapped again, from the page cache; nothing is lost. For a process that
// stays for days and should cost little.
void release_unused_memory();

}  // namespace bitctl
