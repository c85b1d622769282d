"""Pekan hunts data inconsistencies in etcd and in anything that speaks etcd's API."""
