#include "base/unused_memory.h"

#include <malloc.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace bitctl {

void release_unused_memory() {
  struct Mapping {
    uintptr_t begin = 0, end = 0;
  };
  std::vector<Mapping> texts;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    Mapping mapping;
    char permissions[5] = {};
    unsigned long inode = 0;
    // Text alone: it is never written, so the file still holds every byte of it.
    if (std::sscanf(line.c_str(), "%lx-%lx %4s %*x %*s %lu", &mapping.begin, &mapping.end, permissions,
                    &inode) == 4 &&
        std::string_view(permissions) == "r-xp" && inode != 0)
      texts.push_back(mapping);
  }
  for (const Mapping& text : texts)
    ::madvise(reinterpret_cast<void*>(text.begin), text.end - text.begin, MADV_DONTNEED);
  ::malloc_trim(0);
}

}  // namespace bitctl
