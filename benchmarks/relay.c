/* The least that a relay between members can cost: `relay LISTEN:TARGET...`, ports of 127.0.0.1.
 *
 * One thread, one epoll, a recv and a send for each piece, and nothing is looked at or decided. What the cluster loses behind this is what
 * a second connection and a second wake-up cost; benchmarks/proxy.py --floor measures Pekan's proxy beside it. Ends with its standard input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DESCRIPTORS = 4096, EVENTS = 128, PIECE = 256 * 1024 };

static int other[DESCRIPTORS];  /* of a connection: the one that its bytes go to */
static int target[DESCRIPTORS]; /* of a listening socket: the port that it stands for */
static char piece[PIECE];

static struct sockaddr_in local(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  return address;
}

static void watch(int epoll, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void join(int epoll, int listener) {
  int near = accept(listener, NULL, NULL), far = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in address = local(target[listener]);
  if (near < 0 || far < 0 || near >= DESCRIPTORS || far >= DESCRIPTORS || connect(far, (void *)&address, sizeof address) != 0) {
    close(near);
    close(far);
    return;
  }
  setsockopt(near, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(far, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  other[near] = far;
  other[far] = near;
  watch(epoll, near);
  watch(epoll, far);
}

static void carry(int from) {
  int to = other[from];
  ssize_t count = recv(from, piece, PIECE, MSG_DONTWAIT), sent = 0;
  if (count < 0 && errno == EAGAIN) return;
  while (sent < count) {
    ssize_t step = send(to, piece + sent, count - sent, MSG_NOSIGNAL);
    if (step < 0) break;
    sent += step;
  }
  if (count <= 0 || sent < count) {
    other[from] = other[to] = 0;
    close(from);
    close(to);
  }
}

int main(int count, char **arguments) {
  int epoll = epoll_create1(0), one = 1;
  struct epoll_event events[EVENTS];
  for (int i = 1; i < count; i++) {
    int from, to, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address;
    if (sscanf(arguments[i], "%d:%d", &from, &to) != 2) return 2;
    address = local(from);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, sizeof address) != 0 || listen(listener, 512) != 0) {
      perror(arguments[i]);
      return 1;
    }
    target[listener] = to;
    watch(epoll, listener);
  }
  watch(epoll, 0);
  puts("ready");
  fflush(stdout);
  for (;;) {
    int ready = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd == 0) return 0;
      if (target[fd]) join(epoll, fd);
      else if (other[fd]) carry(fd);
    }
  }
}
