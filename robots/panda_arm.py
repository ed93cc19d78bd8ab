"""The Franka Panda's mechanics in a PyBullet client: load, home, follow end-effector deltas, report its pose.

Contract of a command, float32[7] at 20 Hz in the base frame:

    dx dy dz           m     +-0.025, added to the commanded position
    droll dpitch dyaw  rad   +-0.15, added to the commanded angles (roll is counted from pi: the hand points down)
    gripper            1     > 0 opens, < 0 closes, 0 keeps

Deltas add up on the *commanded* target, never on the measured pose, so that small ones are not lost in the arm's lag.
Does not step time: `bullet.advance` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from jaxtyping import Float

from robots.bullet import BulletClient, data_path, pybullet, quiet
from steer.action import ActionAxis, ActionSpec

RATE_HZ: Final = 20.0
MAX_TRANSLATION_M: Final = 0.025
MAX_ROTATION_RAD: Final = 0.15

PANDA_ACTION: Final = ActionSpec(
    axes=(
        *(ActionAxis(name, "m", -MAX_TRANSLATION_M, MAX_TRANSLATION_M) for name in ("dx", "dy", "dz")),
        *(ActionAxis(name, "rad", -MAX_ROTATION_RAD, MAX_ROTATION_RAD) for name in ("droll", "dpitch", "dyaw")),
        ActionAxis("gripper", "1", -1.0, 1.0),
    ),
    kind="delta",
    frame="base",
    reference="commanded",
    rotation="rpy",
    gripper="positive_opens",
    rate_hz=RATE_HZ,
)

NUM_ARM_JOINTS: Final = 7
FINGER_JOINTS: Final = (9, 10)
HAND_LINK: Final = 8
GRASP_LINK: Final = 11

HOME_JOINTS_RAD: Final = np.array([0.0, -0.40, 0.0, -2.35, 0.0, 1.95, 0.785])
HOME_NOISE_RAD: Final = 0.04
FINGER_OPEN_M: Final = 0.04

ARM_COLOUR: Final = (0.96, 0.96, 0.95, 1.0)
HAND_COLOUR: Final = (0.25, 0.28, 0.32, 1.0)

# The workspace of the commanded target, and how far it may run ahead of the measured position on each axis.
LOWEST_M: Final = np.array([0.30, -0.30, 0.012])
HIGHEST_M: Final = np.array([0.70, 0.30, 0.35])
MAX_LEAD_M: Final = 0.05
MAX_ANGLES_RAD: Final = np.array([0.3, 0.3, 1.6])

ARM_FORCE_N: Final = 200.0
FINGER_FORCE_N: Final = 40.0


@dataclass(frozen=True)
class ArmPose:
    """Where the hand is: position m[3], angles rad[3] (roll - pi, pitch, yaw), gripper width m."""

    position_m: Float[np.ndarray, " 3"]
    angles_rad: Float[np.ndarray, " 3"]
    width_m: float


@dataclass
class Command:
    """What the arm is following: the target that deltas are added to, and the gripper (+1 open, -1 closed)."""

    position_m: Float[np.ndarray, " 3"] = field(default_factory=lambda: np.zeros(3))
    angles_rad: Float[np.ndarray, " 3"] = field(default_factory=lambda: np.zeros(3))
    gripper: float = 1.0

    def copy(self) -> Command:
        return Command(self.position_m.copy(), self.angles_rad.copy(), self.gripper)


class PandaArm:
    """One Panda, fixed at the origin of `client`'s world."""

    def __init__(self, client: BulletClient) -> None:
        self.client = client
        # The visual meshes cost 75 MB a client and 20-40 ms an image; without them PyBullet draws the collision
        # hulls, some hundred triangles a link.
        with quiet():
            self.body: int = client.loadURDF(
                data_path("franka_panda/panda.urdf"), useFixedBase=True, flags=pybullet.URDF_IGNORE_VISUAL_SHAPES
            )
        self._couple_fingers()
        self._paint()
        self.command = Command()

    def home(self, rng: np.random.Generator) -> None:
        """Put the arm near its home joints, at rest, gripper open, and command it to stay."""
        joints = HOME_JOINTS_RAD + rng.uniform(-HOME_NOISE_RAD, HOME_NOISE_RAD, NUM_ARM_JOINTS)
        for joint, angle in enumerate(joints):
            self.client.resetJointState(self.body, joint, float(angle))
        for joint in FINGER_JOINTS:
            self.client.resetJointState(self.body, joint, FINGER_OPEN_M)
        pose = self.pose()
        self.command = Command(pose.position_m, pose.angles_rad, gripper=1.0)

    def pose(self) -> ArmPose:
        """The measured pose.

        Forward kinematics are computed anew: after a reset or a restored state PyBullet's cache is stale.
        """
        link = self.client.getLinkState(self.body, GRASP_LINK, computeForwardKinematics=1)
        roll, pitch, yaw = pybullet.getEulerFromQuaternion(link[5])
        fingers = self.client.getJointStates(self.body, FINGER_JOINTS)
        angles = np.array([roll % (2 * math.pi) - math.pi, pitch, yaw])
        return ArmPose(np.array(link[4]), angles, float(fingers[0][0] + fingers[1][0]))

    def follow(self, action: Float[np.ndarray, " 7"], pose: ArmPose) -> None:
        """Add one action within bounds to the command, and set the motors; `pose` is the measured pose now."""
        ahead = np.clip(
            self.command.position_m + action[:3], pose.position_m - MAX_LEAD_M, pose.position_m + MAX_LEAD_M
        )
        self.command = Command(
            position_m=np.clip(ahead, LOWEST_M, HIGHEST_M),
            angles_rad=np.clip(self.command.angles_rad + action[3:6], -MAX_ANGLES_RAD, MAX_ANGLES_RAD),
            gripper=float(np.sign(action[6])) or self.command.gripper,
        )
        self._drive()

    def _drive(self) -> None:
        """Set every motor's target from the command; none keeps an older one, so a restored state needs no motors."""
        roll, pitch, yaw = self.command.angles_rad
        joints = self.client.calculateInverseKinematics(
            self.body,
            GRASP_LINK,
            self.command.position_m.tolist(),
            pybullet.getQuaternionFromEuler([roll + math.pi, pitch, yaw]),
            maxNumIterations=20,
            residualThreshold=1e-4,
        )
        self.client.setJointMotorControlArray(
            self.body,
            range(NUM_ARM_JOINTS),
            pybullet.POSITION_CONTROL,
            targetPositions=joints[:NUM_ARM_JOINTS],
            forces=[ARM_FORCE_N] * NUM_ARM_JOINTS,
            positionGains=[0.25] * NUM_ARM_JOINTS,
            velocityGains=[1.0] * NUM_ARM_JOINTS,
        )
        opening = FINGER_OPEN_M if self.command.gripper > 0 else 0.0
        self.client.setJointMotorControlArray(
            self.body,
            FINGER_JOINTS,
            pybullet.POSITION_CONTROL,
            targetPositions=[opening] * 2,
            forces=[FINGER_FORCE_N] * 2,
            positionGains=[0.2] * 2,
            velocityGains=[1.0] * 2,
        )

    def _couple_fingers(self) -> None:
        """Friction for the fingers, and a gear between them that keeps the grip symmetric (the URDF's mimic is ignored)."""
        for joint in FINGER_JOINTS:
            self.client.changeDynamics(self.body, joint, lateralFriction=1.0, spinningFriction=0.01)
        gear = self.client.createConstraint(
            self.body,
            FINGER_JOINTS[0],
            self.body,
            FINGER_JOINTS[1],
            jointType=pybullet.JOINT_GEAR,
            jointAxis=[1, 0, 0],
            parentFramePosition=[0, 0, 0],
            childFramePosition=[0, 0, 0],
        )
        self.client.changeConstraint(gear, gearRatio=-1, erp=0.1, maxForce=50)

    def _paint(self) -> None:
        for link in range(-1, GRASP_LINK):
            colour = HAND_COLOUR if link in (NUM_ARM_JOINTS - 1, *FINGER_JOINTS) else ARM_COLOUR
            self.client.changeVisualShape(self.body, link, rgbaColor=colour)
