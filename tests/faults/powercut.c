/* Preloaded into Valkey: writes down how much of each file is on the disk, so that a test can cut off the rest, as a
   loss of power may. What a file held when its fsync began is there when it ends; of what came later nothing is known.
   POWERCUT_DIRECTORY gets a file for each that was synced, of the same name: its bytes, in decimal. While that directory
   holds a file `full`, the disk is: no regular file takes another byte. While it holds a file `slow`, no fsync ends. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int is(const char *state) {
  const char *directory = getenv("POWERCUT_DIRECTORY");
  char file[PATH_MAX];
  if (!directory) return 0;
  snprintf(file, sizeof file, "%s/%s", directory, state);
  return access(file, F_OK) == 0;
}

static int synced(int fd, const char *name) {
  int (*original)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  struct stat before;
  int known = fstat(fd, &before) == 0 && S_ISREG(before.st_mode);
  while (known && is("slow")) usleep(1000);
  int result = original(fd);
  const char *directory = getenv("POWERCUT_DIRECTORY");
  char link[64], path[PATH_MAX], record[2 * PATH_MAX], text[32];
  if (result != 0 || !known || !directory) return result;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return result;
  path[length] = 0;
  snprintf(record, sizeof record, "%s/%s", directory, strrchr(path, '/') + 1);
  int out = open(record, O_WRONLY | O_CREAT, 0600);
  if (out < 0) return result;
  int digits = snprintf(text, sizeof text, "%020lld\n", (long long)before.st_size);
  if (pwrite(out, text, digits, 0) != digits) abort();
  close(out);
  return result;
}

int fsync(int fd) { return synced(fd, "fsync"); }
int fdatasync(int fd) { return synced(fd, "fdatasync"); }

ssize_t write(int fd, const void *data, size_t bytes) {
  ssize_t (*original)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
  struct stat about;
  if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && is("full")) {
    errno = ENOSPC;
    return -1;
  }
  return original(fd, data, bytes);
}
