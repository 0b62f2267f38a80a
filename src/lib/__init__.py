"""CenterNet ("Objects as Points", Zhou et al. 2019): an object is the centre point of its box."""
